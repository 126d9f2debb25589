"""The calls about datasets, which all users share."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from starlette.exceptions import HTTPException

from dosna.delivery.front.context import FrontOf, User
from dosna.delivery.front.models import dataset_of

__all__ = ["router"]

router = APIRouter(prefix="/servicex/datasets", tags=["datasets"])


@router.get("")
def list_all(
    front: FrontOf,
    user: User,
    finder: str | None = Query(None, alias="did-finder"),
    deleted: bool = Query(False, alias="show-deleted"),
) -> dict[str, Any]:
    """Return the datasets that were looked up."""
    rows = front.service.state.datasets.all(finder, deleted)
    return {"datasets": [dataset_of(row) for row in rows]}


@router.get("/{id}")
def get(id: int, front: FrontOf, user: User) -> dict[str, Any]:
    """Return a dataset with its files."""
    row = front.service.state.datasets.get(id)
    if row is None:
        raise HTTPException(404, f"there is no dataset {id}")
    return dataset_of(row, front.service.state.datasets.files(id))


@router.delete("/{id}")
def delete(id: int, front: FrontOf, user: User) -> dict[str, Any]:
    """Make the next request look up a dataset again."""
    if not front.service.state.datasets.delete(id):
        raise HTTPException(404, f"there is no dataset {id}")
    return {"dataset-id": id, "stale": True}
