"""Zones of a dataset, which are kept with its description."""

from __future__ import annotations

from dosna.array.description import Described
from dosna.backends.batch import Batch
from dosna.backends.zones import has_room, recorded
from dosna.core.metadata import DatasetMetadata
from dosna.core.zones import ZoneMaker

__all__ = ["complete", "maker_for"]


def maker_for(dataset: Described, is_offsets: bool = False) -> ZoneMaker | None:
    """Return a maker of zones of what is about to be written to a new dataset.

    None is returned if the dataset can have no zones.
    """
    instance = dataset.instance
    if not has_room(instance):
        return None
    instance.noted = {}
    return ZoneMaker(dataset.chunk_size[0], is_offsets)


def complete(dataset: Described, maker: ZoneMaker | None, batch: Batch | None = None) -> None:
    """Mark a dataset complete, and keep its zones; within a collective call.

    With a batch, that is put off until the batch is committed.
    """
    instance = dataset.instance

    def change() -> None:
        zones = None if maker is None else recorded(instance, maker)
        instance.noted = None

        def completed(metadata: DatasetMetadata) -> DatasetMetadata:
            return metadata.replace(incomplete=False, zones=zones)

        if batch is None:
            instance.update(completed)
        else:
            batch.complete(instance, completed)

    dataset.connection.check_writable()
    dataset.change(change)
