"""The JSON of the protocol, for requests and answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dosna.delivery.destinations import OBJECT_STORE
from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import ENDED, SUCCESS

__all__ = ["Submission", "dataset_of", "result_of", "status_of"]

_LONG_TITLE = 10_240
_LONG_PATH = 8192
_MOST_FILES = 1_000_000
CAPABILITIES = ["poll_local_transformation_results", f"long_sample_titles_{_LONG_TITLE}"]


class Submission(BaseModel):
    """A submission: a dataset or a list of files, and a selection."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    title: str | None = Field(None, max_length=_LONG_TITLE)
    did: str | None = Field(None, max_length=4096)
    # The first error is enough: each takes a thousand times the bytes of what is wrong.
    file_list: list[Annotated[str, Field(max_length=_LONG_PATH)]] | None = Field(
        None, alias="file-list", max_length=_MOST_FILES, fail_fast=True
    )
    selection: str = Field(max_length=4 << 20)
    codegen: str
    result_destination: str = Field(OBJECT_STORE, alias="result-destination", max_length=4096)
    result_format: str = Field("parquet", alias="result-format")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def status_of(row: Row, version: str, base: str, host: str, secured: bool) -> dict[str, Any]:
    """Return the status of a request, with the keys of its results.

    Parameters
    ----------
    row : Row
        The request.
    version : str
        The version of the service.
    base : str
        The URL of the service.
    host : str
        The host and port of the S3 façade.
    secured : bool
        Whether the façade uses TLS.
    """
    return {
        "request_id": row.id,
        "did": row.did,
        "did_id": row.dataset,
        "title": row.title,
        "selection": row.selection,
        "tree-name": None,
        "image": f"dosna/{row.codegen}",
        "workers": None,
        "result-destination": row.destination or OBJECT_STORE,
        "result-format": row.format,
        "generated-code-cm": "",
        "status": row.status,
        "failure-info": row.message,
        "app-version": version,
        "code-gen-image": f"dosna/{row.codegen}",
        "files": row.files,
        "files-completed": row.completed,
        "files-failed": row.failed,
        "files-remaining": row.files - row.completed - row.failed,
        "submit-time": _iso(row.submitted),
        "finish-time": _iso(row.finished) if row.finished and row.status in ENDED else "None",
        "minio-endpoint": None if row.destination else host,
        "minio-secured": secured,
        "minio-access-key": None if row.destination else row.access_key,
        "minio-secret-key": None if row.destination else row.secret_key,
        "log-url": f"{base}/requests/{row.id}",
    }


def result_of(row: Row, is_file: bool = True) -> dict[str, Any]:
    """Return what came of a file. `is_file`: whether the result is one that clients fetch."""
    good = row.status == SUCCESS
    return {
        "id": row.number,
        "request-id": row.request,
        "file-id": row.number,
        "file-path": row.path,
        "s3-object-name": row.object if is_file else None,
        "transform_status": "success" if good else "failure",
        "transform_time": row.seconds,
        "total-events": row.entries,
        "total-bytes": row.nbytes,
        "avg-rate": row.entries / row.seconds if row.seconds else 0.0,
        "created_at": datetime.fromtimestamp(row.created // 10**6, UTC)
        .replace(microsecond=row.created % 10**6, tzinfo=None)
        .isoformat(),
        "message": row.message,
    }


def dataset_of(row: Row, files: Any = None) -> dict[str, Any]:
    """Return a dataset, with its files if they are given."""
    found = {
        "id": row.id,
        "name": row.name,
        "did_finder": row.finder,
        "n_files": row.files,
        "size": row.size,
        "events": row.events,
        "last_used": _iso(row.used),
        "last_updated": _iso(row.updated),
        "lookup_status": row.status,
        "is_stale": bool(row.stale),
    }
    if files is not None:
        found["files"] = [
            {
                "id": file.number,
                "adler32": None,
                "file_size": file.size,
                "file_events": file.events,
                "paths": file.path,
            }
            for file in files
        ]
    return found
