#!/bin/sh
# Streamlines of a tractogram should keep their points, and the values at them. nibabel 5.4.2 holds them in one
# array, an ArraySequence, of the type of the first one, and casts all others to it: if the points of the first
# are whole, as seeds and voxels are, [0.5, 1.5, 2.9] of the second becomes [0, 1, 2], and so it is saved in TRK
# and TCK, which have float32 for all. A value of 0.7 at a point after values of 0 and 1 is 0, and extending,
# joining and adding tractograms do the same. With floats first, or by a LazyTractogram, points are right.
# Nothing is said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    nibabel==5.4.2 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import nibabel
import numpy as np
from nibabel.streamlines import ArraySequence, LazyTractogram, Tractogram

warnings.simplefilter("error")
as_seen = True
whole, other = both = [np.array([[1, 2, 3], [2, 3, 4]]), np.array([[0.5, 1.5, 2.9]])]
space = {"affine_to_rasmm": np.eye(4)}


def show(text, found, kept=False):
    global as_seen
    print(f"{text}: {np.asarray(found).tolist()}")
    as_seen &= np.allclose(found, other if kept else np.trunc(other))


show("second streamline", Tractogram(both, **space).streamlines[1])
show("    with floats first", Tractogram([other, whole], **space).streamlines[0], kept=True)
show("    added", (Tractogram([whole], **space) + Tractogram([other], **space)).streamlines[1])
extended = ArraySequence([whole])
extended.extend([other])
show("    extended", extended[1])
for suffix in ("trk", "tck"):
    for kind, kept in ((Tractogram, False), (LazyTractogram, True)):
        tractogram = kind((lambda: iter(both)) if kept else both, **space)
        nibabel.streamlines.save(tractogram, f"x.{suffix}")
        show(f"    {suffix} of a {kind.__name__}", nibabel.streamlines.load(f"x.{suffix}").streamlines[1], kept)
values = {"fa": [np.array([[0], [1]]), np.array([[0.7]])]}
value = Tractogram([whole * 1.0, other], data_per_point=values, **space).data_per_point["fa"][1]
print("value of 0.7 at a point:", value.tolist())
as_seen &= value.tolist() == [[0]]
sys.exit(0 if as_seen else "This has changed.")
END
