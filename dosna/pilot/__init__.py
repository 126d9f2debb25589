"""Pilots, data units and compute units: compute placed near data, data moved to compute.

The Pilot-API: a *pilot* is a job that runs *compute units* (commands), a *pilot data* is a place
that stores *data units* (files that belong together), and `ComputeDataService` places each where
it costs least.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ComputeDataService",
    "ComputeUnit",
    "ComputeUnitDescription",
    "DataUnit",
    "DataUnitDescription",
    "PilotCompute",
    "PilotComputeDescription",
    "PilotComputeService",
    "PilotData",
    "PilotDataDescription",
    "PilotDataService",
    "State",
]

_PLACES = {
    "ComputeDataService": "dosna.pilot.service",
    "ComputeUnit": "dosna.pilot.service",
    "ComputeUnitDescription": "dosna.pilot.descriptions",
    "PilotCompute": "dosna.pilot.service",
    "PilotComputeDescription": "dosna.pilot.descriptions",
    "PilotComputeService": "dosna.pilot.service",
    "DataUnit": "dosna.pilot.data",
    "DataUnitDescription": "dosna.pilot.descriptions",
    "PilotData": "dosna.pilot.data",
    "PilotDataDescription": "dosna.pilot.descriptions",
    "PilotDataService": "dosna.pilot.data",
    "State": "dosna.pilot.states",
}


def __getattr__(name: str) -> Any:
    # SQLAlchemy, fsspec and PSI/J are imported when they are needed.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
