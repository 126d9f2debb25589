"""The command ``dosna pilot``: pilots, data units and compute units of a state."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dosna.cli.console import Console, counted
from dosna.cli.options import add_general
from dosna.errors import ConfigurationError, SourceNotFoundError
from dosna.registry import needing

if TYPE_CHECKING:
    from dosna.pilot.session import Session

__all__ = ["add"]

_DESCRIPTION = """\
Run commands on pilots, which are jobs on this machine, by SSH, or in Slurm, PBS, LSF or Flux, and
stage their files. A database, the state, records everything.
"""

_EPILOG = """\
examples:
  dosna pilot submit plan.yml
  dosna pilot status --watch
  dosna pilot cancel cu-3f0c1d5b7a8e9f00
  dosna pilot fetch du-3f0c1d5b7a8e9f00 results

Run 'dosna pilot ACTION --help' for the options of an action.
"""

_PLAN = """\
Submit what a YAML file describes, and wait for it. With a state of before (--state), go on with
what it has too. Pilots end at the end of this command.

  pilots:
    - {service_url: 'slurm://localhost', number_of_processes: 8, walltime: 30}
  pilot_data:
    store: {service_url: 'ssh://host/scratch/store', userkey: ~/.ssh/id_ed25519}
  data_units:
    text: {file_urls: [/data/text.txt], pilot_data: store}
    results: {pilot_data: store}
  compute_units:
    - name: first
      executable: /bin/cat
      arguments: [text.txt]
      input_data: [text]
      output_data: [{results: 'std*'}]
"""


def add(commands: Any) -> None:
    """Add the command and its actions to a parser."""
    command = commands.add_parser(
        "pilot",
        help="run commands on pilots near their data",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(
        dest="action", required=True, metavar="ACTION", title="actions"
    )
    status = _action(actions, "status", "print the states of pilots, data and units", _status)
    status.add_argument("--watch", action="store_true", help="update the status every second")
    status.add_argument("--most", type=int, default=10, metavar="N", help="units to list (10)")
    submit = _action(actions, "submit", "submit a plan, and wait for it", _submit)
    submit.description = _PLAN
    submit.formatter_class = argparse.RawDescriptionHelpFormatter
    submit.add_argument("plan", metavar="FILE", help="the plan, in YAML")
    cancel = _action(actions, "cancel", "cancel pilots and compute units", _cancel)
    cancel.add_argument("ids", nargs="*", metavar="ID", help="bj-… or cu-…")
    cancel.add_argument("--all", action="store_true", help="everything in the state")
    fetch = _action(actions, "fetch", "copy the files of a data unit to a folder", _fetch)
    fetch.add_argument("id", metavar="ID", help="du-…, or the name of a data unit")
    fetch.add_argument(
        "folder", metavar="FOLDER", help="target folder; created if it does not exist"
    )
    fetch.add_argument("--plan", metavar="FILE", help="plan with the credentials of the places")


def _action(actions: Any, name: str, help: str, run: Any) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}."
    )
    action.set_defaults(run=run, engine="cpu", njobs=None)
    action.add_argument(
        "--state",
        metavar="URL",
        help="the database, such as sqlite:///run.db; $DOSNA_PILOT_STATE, or the newest, by "
        "default",
    )
    action.add_argument("--json", action="store_true", help="print results as JSON")
    add_general(action, "print results and errors only")
    return action


@contextmanager
def _session(arguments: argparse.Namespace) -> Iterator[Session]:
    """Yield the session of a state that exists, which another process may manage."""
    with needing("pilots need", "pilot"):
        from dosna.pilot.report import newest_state
        from dosna.pilot.session import Session
    url = arguments.state or os.environ.get("DOSNA_PILOT_STATE") or newest_state()
    path = url.removeprefix("sqlite:///")
    if path != url and not os.path.exists(path):
        raise ConfigurationError(f"there is no state {path}: name another by --state")
    session = Session(url)
    try:
        yield session
    finally:
        session.close()


def _status(arguments: argparse.Namespace, console: Console) -> int:
    with _session(arguments) as session:
        from dosna.pilot.report import status

        while True:
            found = status(session, arguments.most)
            if arguments.watch and not arguments.json and sys.stdout.isatty():
                # Move to the top, and clear the screen.
                print("\x1b[H\x1b[2J", end="")
            console.give(found)
            _show(found, console)
            if not arguments.watch:
                return 1 if found["failed"] else 0
            sys.stdout.flush()
            time.sleep(1)


def _show(found: dict[str, Any], console: Console) -> None:
    console.say(f"state {found['state']}")
    for table in ("pilots", "pilot_data", "data_units"):
        rows = found[table]
        if rows:
            console.say(f"\n{table.replace('_', ' ')}")
            console.table([[str(value or "") for value in row.values()] for row in rows])
    counts = found["compute_units"]
    console.say("\ncompute units")
    said = [f"{count} {state}" for state, count in sorted(counts.items())]
    console.say(", ".join(said) or "none")
    for key in ("running", "waiting", "failed"):
        console.table([[key, *(str(value) for value in row.values())] for row in found[key]])


def _submit(arguments: argparse.Namespace, console: Console) -> int:
    from dosna.pilot import ComputeDataService, PilotComputeService, PilotDataService
    from dosna.pilot.plans import read_plan

    plan = read_plan(arguments.plan)
    computing = PilotComputeService(arguments.state)
    storing = PilotDataService(arguments.state)
    service = ComputeDataService(arguments.state)
    service.add_pilot_compute_service(computing)
    service.add_pilot_data_service(storing)
    console.remark(f"state {computing.state_url}")
    plan.submit(computing, storing, service)
    units = [service.get_compute_unit(url) for url in service.list_compute_units()]
    with console.progress("run", "units") as progress:
        while not service.wait(timeout=0.5):
            if progress is not None:
                progress(service.count_final(), len(units))
    computing.cancel()
    failed = _tell_failures(units, console)
    console.say(f"{counted(len(units) - failed, 'unit')} of {len(units)} done")
    return 1 if failed else 0


def _tell_failures(units: Sequence[Any], console: Console) -> int:
    rows = [unit.get_details() for unit in units]
    for row in rows:
        if row["state"] != "Done":
            console.complain(f"{row['id']} is {row['state']}: {row['reason']}")
    console.give([{name: row[name] for name in ("id", "state", "reason")} for row in rows])
    return sum(row["state"] != "Done" for row in rows)


def _cancel(arguments: argparse.Namespace, console: Console) -> int:
    if not arguments.ids and not arguments.all:
        raise ConfigurationError("nothing is named: name ids, or use --all")
    with _session(arguments) as session:
        from dosna.pilot.report import cancel

        count = cancel(session, None if arguments.all else arguments.ids)
    console.say(f"{counted(count, 'pilot or unit', 'pilots and units')} will be canceled")
    return 0


def _fetch(arguments: argparse.Namespace, console: Console) -> int:
    with _session(arguments) as session:
        from dosna.pilot.data import DataUnit
        from dosna.pilot.plans import read_plan

        if arguments.plan is not None:
            read_plan(arguments.plan).give_secrets(session)
        rows = list(session.store.rows("data_units"))
        ids = [
            row["id"] for row in rows if arguments.id in (row["id"], row["description"]["name"])
        ]
        if not ids:
            raise SourceNotFoundError(f"{session.store.shown} has no data unit {arguments.id}")
        unit = DataUnit(session, ids[-1])
        if not unit.list():
            raise SourceNotFoundError(
                f"{unit.id} has no files: see 'dosna pilot status' for the units that write it"
            )
        with console.progress("fetch", "B") as progress:
            unit.export(arguments.folder, progress=progress)
    console.say(f"{arguments.folder} has the files of {ids[-1]}")
    return 0
