"""Data units and the places that store them: files are moved to where they are needed, verified.

This package knows nothing about pilots. `stage_in` and `stage_out` carry out requests on any
machine; `request_for` creates them where the state is.
"""

from __future__ import annotations

from dosna.registry import lazily

__all__ = [
    "DataUnit",
    "PilotData",
    "PilotDataService",
    "request_for",
    "stage_in",
    "stage_out",
    "submit_data_unit",
]

_PLACES = {
    "DataUnit": "service",
    "PilotData": "service",
    "PilotDataService": "service",
    "request_for": "records",
    "stage_in": "staging",
    "stage_out": "staging",
    "submit_data_unit": "service",
}
# A machine that stages files has no database.
__getattr__ = lazily(__name__, _PLACES)
