"""Why a compute unit waits: found out on demand, so that nothing has to be recorded for it."""

from __future__ import annotations

from dosna.errors import DosnaError
from dosna.pilot.descriptions import ComputeUnitDescription, PilotComputeDescription
from dosna.pilot.handles import row_of
from dosna.pilot.inputs import Blocked, Doomed, Inputs
from dosna.pilot.session import Session
from dosna.pilot.states import State

__all__ = ["why_waiting"]


def why_waiting(session: Session, id: str) -> str:
    """Return for what a compute unit waits that is New.

    Parameters
    ----------
    session : Session
        The session of the unit.
    id : str
        Its id.

    Examples
    --------
    >>> why_waiting(session, "cu-3f0c1d5b7a8e9f00")  # doctest: +SKIP
    'no pilot has 64 processors on one node: the most are 32'
    """
    row = row_of(session, "compute_units", id)
    try:
        unit = ComputeUnitDescription.of(row["description"])
        Inputs(session).needed(unit, row["number"])
    except (Blocked, Doomed, DosnaError) as error:
        return str(error)
    return _why_no_pilot(session, unit)


def _why_no_pilot(session: Session, unit: ComputeUnitDescription) -> str:
    from dosna.pilot.launching import Launcher

    processes = unit.number_of_processes
    states = [str(State.New), str(State.Pending), str(State.Running), str(State.Unknown)]
    pilots = list(session.store.rows("pilots", state=states))
    if not pilots:
        return "there is no pilot: create one"
    slots = [Launcher(PilotComputeDescription.of(row["description"])).slots for row in pilots]
    if max(slots) < processes:
        text = (
            f"no pilot has {processes} processors on one node: the most are {max(slots)}. Create "
            "one with more processes_per_node, or let the unit have a smaller number_of_processes"
        )
        is_mpi = unit.spmd_variation == "mpi"
        return f"{text}; over several nodes of Slurm, let the unit run srun" if is_mpi else text
    running = [row["state"] == State.Running for row in pilots]
    able = [is_one for is_one, count in zip(running, slots, strict=True) if count >= processes]
    if not any(able):
        return "no pilot that has enough processors runs yet"
    return "the processors of the pilots are taken by other units"
