"""Zones of a dataset, which are kept with its description."""

from __future__ import annotations

from dosna.array.description import Described
from dosna.backends.zones import has_room, recorded
from dosna.core.zones import ZoneMaker

__all__ = ["complete", "maker_for"]


def maker_for(dataset: Described, is_offsets: bool = False) -> ZoneMaker | None:
    """Return a maker of zones of what is about to be written to a new dataset.

    None is returned if the dataset can have no zones, or if it would take a request for each
    stored object to find out its version.
    """
    instance = dataset.instance
    if instance.remote or not has_room(instance):
        return None
    return ZoneMaker(dataset.chunk_size[0], is_offsets)


def complete(dataset: Described, maker: ZoneMaker | None) -> None:
    """Mark a dataset complete, and keep its zones; within a collective call."""
    instance = dataset.instance

    def change() -> None:
        zones = None if maker is None else recorded(instance, maker)
        instance.update(lambda m: m.replace(incomplete=False, zones=zones))

    dataset.connection.check_writable()
    dataset.change(change)
