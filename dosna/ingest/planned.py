"""The plan of an ingest: the datasets that arrays become, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dosna.backends.absent import NOTHING, Absent
from dosna.core.metadata import DatasetMetadata
from dosna.sources.base import ArrayDescription

if TYPE_CHECKING:
    from dosna.backends.linked.link import Link

__all__ = ["Plan", "PlannedArray", "State"]

State = Literal["absent", "resume", "complete", "replace"]
"""The state of a dataset's place, and with it what the ingest does there."""


@dataclass(frozen=True)
class PlannedArray:
    """An array of a source, and the dataset that it becomes.

    Parameters
    ----------
    target : str
        The name of the dataset.
    description : ArrayDescription
        The description of the array, as the backend stores it.
    origin : dict
        The dataset's origin.
    metadata : DatasetMetadata, optional
        The metadata of the dataset; None for a link.
    options : mapping
        The options of the backend's `create_dataset`.
    link : Link, optional
        The place of the elements, if the dataset links to them.
    read_as : ArrayDescription, optional
        The source's own description, where the backend stores another dtype.
    state : str
        The state of the place that the name has in the connection.
    """

    target: str
    description: ArrayDescription
    origin: dict[str, Any]
    metadata: DatasetMetadata | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    link: Link | None = None
    read_as: ArrayDescription | None = None
    state: State = "absent"


@dataclass
class Plan:
    """The plan of an ingest.

    Parameters
    ----------
    arrays : list of PlannedArray
    skipped : dict of str to str
        The names of arrays that are left out, and the reasons.
    failed : set of str
        The names in `skipped` of arrays that are left out because of an error, and not because a
        dataset cannot represent them.
    hopeful : bool
        True if it was not checked whether the only array's dataset exists, because creating it
        shows that.
    absent : Absent
        The names of datasets and groups at and below which nothing is.
    """

    arrays: list[PlannedArray] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    hopeful: bool = False
    absent: Absent = NOTHING
