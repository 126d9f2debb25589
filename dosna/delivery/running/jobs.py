"""A job: one file of a request, from its source to the place of results."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from dosna.delivery.finders.allowed import check_source
from dosna.delivery.objects import ObjectPlace, open_place
from dosna.delivery.settings import Settings
from dosna.delivery.state.files import Outcome
from dosna.delivery.state.requests import Row, object_name
from dosna.delivery.transform import FORMATS, Limits, TransformRequest, TransformResult
from dosna.delivery.transform.client import check_wanted
from dosna.errors import ConnectionError, DosnaError, LimitError, StorageError, WorkerError
from dosna.io.files import FULL
from dosna.io.s3.options import S3Options

__all__ = ["Job", "Transform", "carry_out", "is_passing", "job_of", "scratch_beginning"]

Transform = Callable[[TransformRequest], TransformResult]

_MOST_TEXT = 16 << 10


@dataclass(frozen=True)
class Job:
    """One file of a request. It can be pickled.

    Parameters
    ----------
    request : str
        The request.
    number : int
        The number of the file in the request.
    source : str
        The path or URL.
    codegen, selection, format : str
        See `dosna.delivery.transform.TransformRequest`.
    place : ObjectPlace
        The place of results.
    settings : Settings
        The settings of the service, without those that workers do not need.
    """

    request: str
    number: int
    source: str
    codegen: str
    selection: str = field(repr=False)
    format: str
    place: ObjectPlace = field(repr=False)
    settings: Settings = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the result."""
        return object_name(self.number, self.source, FORMATS[self.format])


def job_of(row: Row, number: int, path: str, settings: Settings) -> Job:
    """Return the job of a file of a request, from its row."""
    place = open_place(settings.objects_place, settings.objects_endpoint)
    needed = settings.for_workers
    return Job(row.id, number, path, row.codegen, row.selection, row.format, place, needed)


def carry_out(job: Job, transform: Transform) -> Outcome:
    """Run a job, and return the outcome.

    Raises
    ------
    WorkerError, StorageError, ConnectionError
        A worker died, or storage failed: the job can be tried again.
    """
    settings, began = job.settings, time.monotonic()
    beginning = scratch_beginning(settings, job.request)
    folder, prefix = os.path.split(beginning)
    with _full_is_passing(), ExitStack() as stack:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        here = stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=prefix))
        check_wanted(here)
        # The file may have been replaced by a link since it was looked up.
        source = check_source(job.source, settings)
        made = transform(
            TransformRequest(
                source=source,
                codegen=job.codegen,
                selection=job.selection,
                format=job.format,
                folder=here,
                name=job.name,
                limits=Limits(settings.file_seconds, settings.file_memory, settings.file_disk),
                s3=S3Options(endpoint_url=settings.sources_endpoint),
                within=settings.folders,
                unconfined=settings.unconfined,
                func_adl=settings.func_adl,
            )
        )
        check_wanted(here)
        job.place.put(job.request, job.name, made.path)
    return Outcome(
        job.name, made.size, made.rows, time.monotonic() - began, log=made.log[-_MOST_TEXT:]
    )


@contextmanager
def _full_is_passing() -> Iterator[None]:
    """Make errors of a full disk those of storage, which is tried again."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageError(
            f"there is no space for unfinished files ({error.strerror}): make some in the state"
        ) from error


def scratch_folder(settings: Settings) -> str:
    """Return the folder of unfinished files, which is emptied when the service starts."""
    return os.path.abspath(os.path.join(settings.state, "scratch"))


def scratch_beginning(settings: Settings, request: str) -> str:
    """Return the common beginning of the paths of a request's unfinished files."""
    return os.path.join(scratch_folder(settings), f"file-{request}-")


def is_passing(error: BaseException) -> bool:
    """Return True if a job with this error may succeed when it is tried again."""
    passing = (WorkerError, StorageError, ConnectionError)
    return isinstance(error, passing) and not isinstance(error, LimitError)


def failure(error: BaseException, began: float) -> Outcome:
    """Return the outcome of a file that failed."""
    text = str(error) if isinstance(error, DosnaError) else f"{type(error).__name__}: {error}"
    log = "\n".join(getattr(error, "__notes__", ()))
    return Outcome(
        None,
        seconds=time.monotonic() - began,
        message=text[:_MOST_TEXT],
        log=log[-_MOST_TEXT:],
    )
