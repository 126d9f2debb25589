#!/bin/sh
# An event should have the same energies and places after it was written and read, whatever its units are. pyhepmc
# 2.16.1 (HepMC3) keeps units in its own formats. The common block HEPEVT knows GeV and mm alone, and the reader says
# that these are the event's units; but the writer writes the numbers as they are. So an event in MeV and cm comes
# back with a thousand times its energy and a tenth of its length, and of the warnings, "HEPEVT format is outdated"
# is the only one. HepMC3's own default is GeV, MeV is that of Geant4. set_units(GEV, MM) before writing helps.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pyhepmc==2.16.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import pyhepmc
from pyhepmc import Units


def event(momentum, length):
    made = pyhepmc.GenEvent(momentum, length)
    at = pyhepmc.GenVertex((0, 0, 30, 0))
    at.add_particle_in(pyhepmc.GenParticle((0, 0, 5000, 5000), 22, 4))
    at.add_particle_out(pyhepmc.GenParticle((0, 3000, 4000, 5000), 22, 1))
    made.add_vertex(at)
    return made


def returned(made, kind):
    with pyhepmc.open(f"event.{kind}", "w", format=kind) as file:
        file.write(made)
    with pyhepmc.open(f"event.{kind}", format=kind) as file:
        found = file.read()
    found.set_units(Units.GEV, Units.MM)
    return [found.particles[1].momentum.e, found.vertices[0].position.z]


as_seen = True
for momentum, length, right in ((Units.MEV, Units.CM, [5, 300]), (Units.GEV, Units.MM, [5000, 30])):
    for kind in ("HepMC3", "HepMC2", "HEPEVT"):
        found = returned(event(momentum, length), kind)
        print(f"5000 {momentum.name} at 30 {length.name} by {kind}: {found[0]} GeV at {found[1]} mm")
        as_seen &= found == ([5000, 30] if kind == "HEPEVT" else right)
converted = event(Units.MEV, Units.CM)
converted.set_units(Units.GEV, Units.MM)
found = returned(converted, "HEPEVT")
print("with set_units before:", found)
as_seen &= found == [5, 300]
sys.exit(0 if as_seen else "This has changed.")
END
