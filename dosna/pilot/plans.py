"""Plans: named pilots, places, data units and compute units in a YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dosna.errors import ConfigurationError
from dosna.pilot.descriptions import (
    ComputeUnitDescription,
    DataUnitDescription,
    PilotComputeDescription,
    PilotDataDescription,
)
from dosna.pilot.session import Session
from dosna.registry import needing

__all__ = ["Plan", "read_plan"]

_PARTS = ("pilots", "pilot_data", "data_units", "compute_units")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class Plan:
    """The content of a plan.

    Parameters
    ----------
    content : mapping
        ``pilots`` and ``compute_units``, which are lists of descriptions, and ``pilot_data`` and
        ``data_units``, which are mappings of names to descriptions. A data unit has the name of
        its ``pilot_data``; ``input_data``, ``output_data`` and ``depends_on`` of a compute unit
        contain names. The secrets of a pilot data may be ``$NAME``, a variable of the environment.
    shown : str
        The name of the file.

    Raises
    ------
    ConfigurationError
        A part is missing, unknown or malformed.
    """

    def __init__(self, content: Any, shown: str) -> None:
        if not isinstance(content, Mapping) or content.keys() - {*_PARTS}:
            raise ConfigurationError(
                f"{shown} is not a plan of pilots: use the parts {', '.join(_PARTS)}"
            )
        self._shown = shown
        self.pilots = self._list(content, "pilots")
        self.units = self._list(content, "compute_units")
        self.places = self._names(content, "pilot_data")
        self.data_units = self._names(content, "data_units")

    def _list(self, content: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
        found = content.get(part) or []
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise ConfigurationError(f"{self._shown}: {part} must be a list of mappings")
        return [dict(one) for one in found]

    def _names(self, content: Mapping[str, Any], part: str) -> dict[str, dict[str, Any]]:
        found = content.get(part) or {}
        values = found.values() if isinstance(found, Mapping) else [None]
        if not all(one is None or isinstance(one, Mapping) for one in values):
            raise ConfigurationError(
                f"{self._shown}: {part} must be a mapping of names to mappings"
            )
        return {str(name): dict(one or {}) for name, one in found.items()}

    def make_places(self, service: Any) -> dict[str, Any]:
        """Register the places with a `PilotDataService`, with secrets; return them by name."""
        return {name: service.create_pilot(one) for name, one in self._described().items()}

    def give_secrets(self, session: Session) -> None:
        """Pass a session the secrets of the places that its state knows."""
        for description in self._described().values():
            shown = description.fields()
            secrets = description.secrets()
            for row in session.store.rows("pilot_data"):
                if row["description"] == shown:
                    session.keep_secrets(row["id"], secrets)

    def _described(self) -> dict[str, PilotDataDescription]:
        found = {}
        for name, fields in self.places.items():
            secrets = {
                key: self._from_environment(str(value))
                for key, value in fields.items()
                if key in PilotDataDescription.SECRET
            }
            found[name] = PilotDataDescription.of({**fields, **secrets})
        return found

    def submit(self, computing: Any, storing: Any, service: Any) -> list[Any]:
        """Submit everything to the services of one state; return the compute units.

        Raises
        ------
        ConfigurationError
            A field or a name is invalid. Then nothing was submitted.
        """
        self._check()
        places = self.make_places(storing)
        for fields in self.pilots:
            computing.create_pilot(fields)
        urls: dict[str, str] = {}
        for name, fields in self.data_units.items():
            described = _of_data_unit(name, fields)
            chosen = fields.get("pilot_data")
            if chosen is None:
                unit = service.submit_data_unit(described)
            else:
                unit = self._named(chosen, places, "pilot data").submit_data_unit(described)
            urls[name] = unit.get_url()
        units: list[Any] = []
        of_names: dict[str, str] = {}
        for fields in self.units:
            unit = service.submit_compute_unit(self._resolved(fields, urls, of_names))
            units.append(unit)
            if fields.get("name"):
                of_names[str(fields["name"])] = unit.get_url()
        return units

    def _check(self) -> None:
        from dosna.pilot.launching import Launcher

        self._described()
        for fields in self.pilots:
            Launcher(PilotComputeDescription.of(fields))
        for name, fields in self.data_units.items():
            DataUnitDescription.of(_of_data_unit(name, fields))
            if fields.get("pilot_data") is not None:
                self._named(fields["pilot_data"], self.places, "pilot data")
        urls = dict.fromkeys(self.data_units, "du-0")
        before: dict[str, str] = {}
        for fields in self.units:
            ComputeUnitDescription.of(self._resolved(fields, urls, before))
            if fields.get("name"):
                before[str(fields["name"])] = "cu-0"

    def _resolved(
        self, fields: Mapping[str, Any], urls: Mapping[str, str], units: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the fields of a unit with URLs instead of names."""
        resolved = dict(fields)
        for key in ("input_data", "output_data"):
            resolved[key] = [
                {self._named(name, urls, "data unit"): files for name, files in one.items()}
                if isinstance(one, Mapping)
                else self._named(one, urls, "data unit")
                for one in fields.get(key) or []
            ]
        resolved["depends_on"] = [
            self._named(one, units, "compute unit before this one")
            for one in fields.get("depends_on") or []
        ]
        return resolved

    def _named(self, name: Any, known: Mapping[str, Any], what: str) -> Any:
        if name not in known:
            raise ConfigurationError(f"{self._shown}: there is no {what} named {name!r}")
        return known[name]

    def _from_environment(self, text: str) -> str:
        found = _VARIABLE.fullmatch(text)
        if found is None:
            return text
        if found[1] not in os.environ:
            raise ConfigurationError(f"{self._shown}: the environment has no {found[1]}: set it")
        return os.environ[found[1]]


def _of_data_unit(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the description of a data unit."""
    return {"name": name, **{key: value for key, value in fields.items() if key != "pilot_data"}}


def read_plan(path: str) -> Plan:
    """Read a plan from a file.

    Raises
    ------
    ConfigurationError
        The file cannot be read, or is not a plan.
    """
    with needing("plans need", "pilot"):
        import yaml
    try:
        return Plan(yaml.safe_load(Path(path).read_text()) or {}, path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" in line {line + 1}"
        raise ConfigurationError(f"{path} is not YAML{where}") from None
