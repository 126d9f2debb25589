"""The bucket loader: many HDF5 files, loaded and verified by many workers.

An *inventory* in a database has a row for each file. `watch` lists a bucket (or a folder) and
adds new files; `load` takes files and loads them into a connection, or links them; `diff`
verifies the loaded files. Each may run many times, on many machines::

    import dosna.loader as loader

    config = loader.Config.read("config.yml")
    loader.watch(config, once=True)
    loader.load(config, once=True)
    loader.diff(config, once=True)
    print(loader.status(config))
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dosna.loader.config import Config

if TYPE_CHECKING:
    from dosna.loader.inventory import Inventory
    from dosna.loader.report import Status

__all__ = ["Config", "diff", "init", "load", "open_inventory", "reset", "status", "watch"]


def open_inventory(config: Config) -> Inventory:
    """Open the inventory that a configuration names, and create it if it does not exist.

    Use it in a ``with`` block. Its methods are described at
    `dosna.loader.inventory.Inventory`.

    Parameters
    ----------
    config : Config
        The configuration of the loader.

    Returns
    -------
    Inventory

    Raises
    ------
    ConfigurationError
        The inventory belongs to another source or target.
    StorageError
        The database cannot be used.
    MissingDependencyError
        The driver of the database is not installed.
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.inventory import Inventory

    places = {"source": open_bucket(config).location}
    target = config.target or config.tgt_folder
    if target is not None:
        places["target"] = target
    inventory = Inventory(config.inventory)
    inventory.prepare(**places)
    return inventory


def init(config: Config) -> None:
    """Create the inventory, and check that the source and the target can be reached.

    Parameters
    ----------
    config : Config
        The configuration of the loader.

    Raises
    ------
    ConfigurationError
        A value is missing or wrong, or the inventory belongs to another source or target.
    StorageError
        The database or the source cannot be used.
    dosna.errors.ConnectionError
        The target cannot be reached.
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.targets import open_target

    bucket = open_bucket(config)
    for _ in bucket.pages():
        break
    open_target(config, bucket).close()
    open_inventory(config).close()


def watch(
    config: Config, *, once: bool = False, stop: threading.Event | None = None
) -> tuple[int, int]:
    """List the files, and add those that are new or have changed to the inventory.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    once : bool
        Whether to list once only, instead of every `watchdog_sleep_time` seconds.
    stop : threading.Event, optional
        An event that makes this function return when it is set.

    Returns
    -------
    new, changed : int
        The numbers of files that were new, and that had changed.

    Raises
    ------
    ConfigurationError
        A value is missing or wrong, or the inventory belongs to another source or target.
    StorageError
        The first listing fails; later ones are tried again.
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.watcher import watch as watch_

    bucket = open_bucket(config)
    with open_inventory(config) as inventory:
        return watch_(config, inventory, bucket, once, stop or threading.Event())


def load(config: Config, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Load files of the inventory into the target.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    once : bool
        Whether to return when no file waits and none is being loaded, by this or another worker.
    stop : threading.Event, optional
        An event that makes this function return when it is set. Files that are being loaded
        are finished, or given back to the inventory.

    Returns
    -------
    int
        The number of files that were loaded.

    Raises
    ------
    ConfigurationError
        A value is missing or wrong, or the inventory belongs to another source or target.
    StorageError
        The inventory cannot be used.
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.worker import Loader

    with open_inventory(config) as inventory:
        return Loader(config, inventory, open_bucket(config), stop or threading.Event()).run(once)


def diff(config: Config, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Verify files that were loaded: values, shapes, dtypes and attributes.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    once : bool
        Whether to return when all files are loaded (or failed) and verified.
    stop : threading.Event, optional
        An event that makes this function return when it is set. Files that are being verified
        are finished, or given back to the inventory.

    Returns
    -------
    int
        The number of files that were verified. The outcomes are in the inventory.

    Raises
    ------
    ConfigurationError
        A value is missing or wrong, or the inventory belongs to another source or target.
    StorageError
        The inventory cannot be used.
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.worker import Differ

    with open_inventory(config) as inventory:
        return Differ(config, inventory, open_bucket(config), stop or threading.Event()).run(once)


def status(config: Config, *, most: int | None = 10) -> Status:
    """Count the files by state, and list files that failed.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    most : int or None
        The most files to list, None for all.

    Returns
    -------
    Status

    Raises
    ------
    ConfigurationError
        The inventory belongs to another source or target.
    StorageError
        The inventory cannot be used.
    """
    from dosna.loader.report import Status

    with open_inventory(config) as inventory:
        return Status.of(inventory, most)


def reset(
    config: Config,
    pattern: str | None = None,
    *,
    every: bool = False,
    diff_only: bool = False,
) -> int:
    """Make files that failed or differ available for another try.

    Parameters
    ----------
    config : Config
        The configuration of the loader.
    pattern : str, optional
        A pattern of keys, with ``*`` and ``?``; all keys by default.
    every : bool
        Whether to include files that have not failed.
    diff_only : bool
        Whether to verify again only, without loading.

    Returns
    -------
    int
        The number of files that were reset.
    """
    with open_inventory(config) as inventory:
        return inventory.reset(pattern, every=every, diff_only=diff_only)
