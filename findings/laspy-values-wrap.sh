#!/bin/sh
# A column of a LAS file is a NumPy array of few bits, so one would expect each assignment of what does not fit to
# be refused, as laspy 2.7.0 refuses coordinates, classes and numbers of returns (OverflowError). Intensities,
# colours, scan angles and further dimensions of integers are cut off instead: an intensity of 70000 becomes 4464,
# one of -1 becomes 65535, an angle of 200 degrees becomes -56. And the check of scaled dimensions lets NaN
# through: a missing x becomes -21474836.48 m with a scale of 1 cm, which is then the least x in the header of the
# file, and a missing value of a scaled dimension of 16 bits becomes 0. Nothing warns of the integers; of NaN only
# NumPy's cast does.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    laspy==2.7.0 numpy==2.4.6 || exit 2
venv/bin/python -I -W error - <<'END'
import sys
import warnings

import laspy
import numpy as np


def refused(work):
    try:
        work()
    except OverflowError as error:
        return str(error)
    return None


header = laspy.LasHeader(point_format=3, version="1.2")
header.scales, header.offsets = [0.01] * 3, [0, 0, 0]
cloud = laspy.LasData(header)
cloud.x, cloud.y, cloud.z = np.array([1.0, 2, 3, 4]), np.zeros(4), np.zeros(4)
answers = [
    refused(lambda: setattr(cloud, "x", np.array([3e7, 1, 2, 3]))),
    refused(lambda: setattr(cloud, "classification", np.array([200, 2, 3, 4]))),
    refused(lambda: setattr(cloud, "return_number", np.array([9, 1, 2, 3]))),
]
print("refused:", *answers, sep="\n    ")
as_seen = all(answers)
cloud.intensity = np.array([70_000, -1, 3, 4])
cloud.red = np.array([65_536, -1, 3, 4])
cloud.scan_angle_rank = np.array([200, -200, 3, 4])
cloud.add_extra_dim(laspy.ExtraBytesParams("plain", "u1"))
cloud["plain"] = np.array([300, -1, 3, 4])
cloud.add_extra_dim(
    laspy.ExtraBytesParams("scaled", "i2", scales=np.array([0.1]), offsets=np.array([5.0]))
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cloud["scaled"] = np.array([np.nan, 6, 7, 8])
    cloud.x = np.array([np.nan, 1, 2, 3])
print("warnings for NaN:", {str(one.message) for one in caught})
as_seen &= {one.category for one in caught} == {RuntimeWarning}
cloud.write("cloud.las")
found = laspy.read("cloud.las")
read = {
    name: np.asarray(found[name]).tolist()
    for name in ("intensity", "red", "scan_angle_rank", "plain", "scaled", "x")
}
print(*read.items(), f"least x of the header: {found.header.mins[0]}", sep="\n")
as_seen &= read["intensity"] == [4464, 65_535, 3, 4]
as_seen &= read["red"] == [0, 65_535, 3, 4]
as_seen &= read["scan_angle_rank"] == [-56, 56, 3, 4]
as_seen &= read["plain"] == [44, 255, 3, 4]
as_seen &= read["scaled"][0] == 5.0
as_seen &= read["x"] == [-21_474_836.48, 1, 2, 3] and found.header.mins[0] == -21_474_836.48
sys.exit(0 if as_seen else "This has changed.")
END
