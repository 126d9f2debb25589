"""The bucket loader: many HDF5 files, loaded and verified by many workers.

An *inventory* in a database has a row for each file. `watch` lists a bucket (or a folder) and
adds what is new; `load` takes files and loads them into a connection, or links them; `diff`
verifies what was loaded. Each may run many times, on many machines::

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
    """Connect to the inventory that a configuration names, and make it if there is none.

    Use it in a ``with`` block. What it can do stands at `dosna.loader.inventory.Inventory`.

    Raises
    ------
    ConfigurationError
        It is of another source or target.
    StorageError
        The database cannot be used.
    MissingDependencyError
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
    """Make the inventory, and look whether the source and the target can be reached.

    Raises
    ------
    ConfigurationError
    StorageError
    dosna.errors.ConnectionError
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
    """List the files, and add to the inventory those that are new or have changed.

    Parameters
    ----------
    config : Config
    once : bool
        List once, and not every `watchdog_sleep_time` seconds.
    stop : threading.Event, optional
        Set it to let this return.

    Returns
    -------
    new, changed : int

    Raises
    ------
    ConfigurationError
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
    once : bool
        Return when no file waits and none is being loaded, by this or another worker.
    stop : threading.Event, optional
        Set it to let this return: files are finished, or given back.

    Returns
    -------
    int
        How many files were loaded.

    Raises
    ------
    ConfigurationError
    StorageError
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.worker import Loader

    with open_inventory(config) as inventory:
        return Loader(config, inventory, open_bucket(config), stop or threading.Event()).run(once)


def diff(config: Config, *, once: bool = False, stop: threading.Event | None = None) -> int:
    """Verify files that were loaded: values, shapes, dtypes, attributes.

    Parameters
    ----------
    config, once, stop
        As in `load`; with `once` it returns when all are loaded (or failed) and verified.

    Returns
    -------
    int
        How many files were verified; the inventory says with what outcome.

    Raises
    ------
    ConfigurationError
    StorageError
    """
    from dosna.loader.bucket import open_bucket
    from dosna.loader.worker import Differ

    with open_inventory(config) as inventory:
        return Differ(config, inventory, open_bucket(config), stop or threading.Event()).run(once)


def status(config: Config, *, most: int | None = 10) -> Status:
    """Count the files by state, and say what failed, at most so many.

    Raises
    ------
    ConfigurationError
    StorageError
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
    """Let files be tried again that have failed or differ.

    Parameters
    ----------
    config : Config
    pattern : str, optional
        Only keys like this, with ``*`` and ``?``.
    every : bool
        Also those that have not failed.
    diff_only : bool
        Verify again, and do not load.

    Returns
    -------
    int
        How many files.
    """
    with open_inventory(config) as inventory:
        return inventory.reset(pattern, every=every, diff_only=diff_only)
