#!/bin/sh
# Events that are read and written again should stay the same, as generators write them with eleven digits.
# pylhe 2.1.0 reads all digits and writes, by default, the weights of variations with five, momenta, energies
# and masses with nine and lifetimes with five, but the nominal weight with eleven: a variation that does
# nothing differs from the nominal weight, and two variations that differ by 8e-5 become one, as members of sets
# of partons may; and a muon of 1.5 TeV, which has its mass of 0.105 GeV by energy and momentum before, has 0.
# Nothing is said. LHEXMLFormat takes other formats of numbers.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    pylhe==2.1.0 || exit 2
venv/bin/python -I - <<'END'
import sys

import pylhe

EVENTS = """<LesHouchesEvents version="3.0">
<init>
2212 2212 6.5e+03 6.5e+03 0 0 247000 247000 -4 1
5.0e+01 1.0e-01 5.0e+01 1
</init>
<event>
2 1 1.0123456789e+01 9.1188e+01 7.5e-03 1.2e-01
 21 -1 0 0 501 502 0.0 0.0 1.5000000037e+03 1.5000000037e+03 0.0 0.0 9.0
 13 1 1 1 0 0 1.5000000000e+03 0.0 0.0 1.5000000037e+03 1.0565800000e-01 1.2345678e-03 1.0
<rwgt>
<wgt id="same">1.0123456789e+01</wgt>
<wgt id="one">1.0125600000e+01</wgt>
<wgt id="other">1.0126400000e+01</wgt>
</rwgt>
</event>
</LesHouchesEvents>
"""


def show(text):
    with open("events.lhe", "w") as file:
        file.write(text)
    (event,) = pylhe.LHEFile.fromfile("events.lhe").events
    muon, nominal = event.particles[1], event.eventinfo.weight
    mass = abs(muon.e**2 - muon.px**2) ** 0.5
    ratios = {name: weight / nominal - 1 for name, weight in event.weights.items()}
    print(f"mass {mass:.4f}, lifetime {muon.lifetime}, weights {nominal} and {event.weights}")
    print("    ratios - 1:", {name: f"{ratio:.1e}" for name, ratio in ratios.items()})
    return mass, muon.lifetime, nominal, ratios


mass, lifetime, nominal, ratios = show(EVENTS)
as_seen = 0.104 < mass < 0.107 and ratios["same"] == 0 and 7e-5 < ratios["other"] - ratios["one"] < 9e-5
with open("events.lhe", "w") as file:
    file.write(EVENTS)
written = show(pylhe.LHEFile.fromfile("events.lhe").tolhe())
as_seen &= written[0] == 0 and written[1] != lifetime and written[2] == nominal
as_seen &= written[3]["same"] != 0 and len({*written[3].values()}) == 2
sys.exit(0 if as_seen else "This has changed.")
END
