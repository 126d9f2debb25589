"""The work on requests: lookup, the first file, and then all others by workers."""

from __future__ import annotations

from dosna.delivery.running.dispatcher import Dispatcher
from dosna.delivery.running.submitting import Submissions
from dosna.delivery.running.workers import DaskWorkers, LocalWorkers, Workers, open_workers

__all__ = ["DaskWorkers", "Dispatcher", "LocalWorkers", "Submissions", "Workers", "open_workers"]
