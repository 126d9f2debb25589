"""Pilots, data units and compute units: compute placed near data, data moved to compute.

The Pilot-API: a *pilot* is a job that runs *compute units* (commands), a *pilot data* is a place
that stores *data units* (files that belong together), and `ComputeDataService` places each where
it costs least.
"""

from __future__ import annotations

from dosna.registry import lazily

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
    "ComputeDataService": "service",
    "ComputeUnit": "service",
    "ComputeUnitDescription": "descriptions",
    "PilotCompute": "service",
    "PilotComputeDescription": "descriptions",
    "PilotComputeService": "service",
    "DataUnit": "data",
    "DataUnitDescription": "descriptions",
    "PilotData": "data",
    "PilotDataDescription": "descriptions",
    "PilotDataService": "data",
    "State": "states",
}
# SQLAlchemy, fsspec and PSI/J are imported when they are needed.
__getattr__ = lazily(__name__, _PLACES)
