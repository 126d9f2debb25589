#!/bin/sh
# A field of a radar that the Universal Format cannot hold should be refused, scaled to fit or be missing; the format
# has 16 bits for a value and a scale for each field. write_uf of Py-ART 2.3.0 takes 100 where no scale is given, as
# its documentation says, and what is beyond 327.67 then wraps around: a differential phase of 330 degrees is read as
# -325.36, and 350 as -305.36. Nothing is said. Many radars give phases from 0 to 360, so that the last tenth of the
# circle is another one, and a steady increase has steps. A key _UF_scale_factor of 50 in the field helps;
# CfRadial, by the same library, keeps all values.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    arm_pyart==2.3.0 numpy==2.4.6 || exit 2
PYART_QUIET=1 venv/bin/python -I - <<'END'
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import pyart

as_seen = True


def show(field, values, by_uf, **options):
    global as_seen
    data = np.ma.masked_invalid(np.array([values] * 4, "f4"))
    radar = pyart.testing.make_empty_ppi_radar(len(values), 4, 1)
    radar.range["data"] = (50 + 100 * np.arange(len(values))).astype("f4")
    radar.range |= {"meters_between_gates": 100.0, "meters_to_center_of_first_gate": 50.0}
    radar.azimuth["data"] = np.array([0, 90, 180, 270], "f4")
    radar.instrument_parameters = {"nyquist_velocity": {"data": np.full(4, 17, "f4")}}
    radar.fields = {field: {"data": data, "units": "", "_FillValue": -9999.0, **options}}
    for kind, expected in (("uf", by_uf), ("cfradial", values)):
        getattr(pyart.io, f"write_{kind}")(f"radar.{kind}", radar)
        read = getattr(pyart.io, f"read_{kind}")(f"radar.{kind}")
        found = read.fields[field]["data"][0].astype("f8").filled(np.nan).round(4)
        print(f"{field}, written {values}, read from {kind} {found.tolist()}")
        as_seen &= np.allclose(found, expected, atol=1e-4, equal_nan=True)


show("differential_phase", [10.5, 180, 330, 350, np.nan], [10.5, 180, -325.36, -305.36, np.nan])
show("differential_phase", [10.5, 180, 330, 350, np.nan], [10.5, 180, 330, 350, np.nan], _UF_scale_factor=50)
show("velocity", [-1.25, 1.25, 0, 400, np.nan], [-1.25, 1.25, 0, -255.36, np.nan])
sys.exit(0 if as_seen else "This has changed.")
END
