"""The watcher, which adds the listed files of a bucket to the inventory."""

from __future__ import annotations

import logging
import threading

from dosna.errors import DosnaError
from dosna.loader.bucket import Bucket
from dosna.loader.config import Config
from dosna.loader.inventory import Inventory
from dosna.loader.worker import Heartbeat

__all__ = ["watch"]

log = logging.getLogger("dosna.loader")

_BEAT_SECONDS = 10.0


def watch(
    config: Config, inventory: Inventory, bucket: Bucket, once: bool, stop: threading.Event
) -> tuple[int, int]:
    """Carry out `dosna.loader.watch`."""
    heartbeat = Heartbeat(config.heartbeat)
    new = changed = rounds = 0
    while not stop.is_set():
        try:
            pages = bucket.pages()
            while True:
                asked = inventory.time()
                page = next(pages, None)
                if page is None:
                    break
                added, others = inventory.add(page, asked)
                new, changed = new + added, changed + others
                if added or others:
                    log.info("%d new files, %d changed", added, others)
                heartbeat.beat()
                if stop.is_set():
                    break
        except DosnaError as error:
            if once or rounds == 0:
                raise
            log.warning("%s", error)
        if once:
            break
        rounds += 1
        waited = 0.0
        while waited < config.watchdog_sleep_time and not stop.is_set():
            heartbeat.beat()
            pause = min(_BEAT_SECONDS, config.watchdog_sleep_time - waited)
            stop.wait(pause)
            waited += pause
    return new, changed
