#!/bin/sh
# Noise that is taken away should leave the mean of an image as it was. Scanners write integers, and nlmeans,
# mppca and localpca of DIPY 1.12.1 compute in floats and cut the result off in the type of the image: a signal
# of 20 counts, as behind strong gradients, is 19.5 afterwards, and 20.0 if the same image is given in float32.
# gibbs_removal cuts off between its steps too: of 1000 counts 1.2 are lost, and single pixels are 7 counts from
# those of floats. Nothing is said. Diffusivities are logarithms of such ratios, so they come out too large, the
# more so the weaker the signal is. Convert images to float32 before.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    dipy==1.12.1 numpy==2.4.6 scipy==1.17.1 || exit 2
venv/bin/python -I - <<'END'
import sys

import numpy as np
from dipy.denoise.gibbs import gibbs_removal
from dipy.denoise.localpca import localpca, mppca
from dipy.denoise.nlmeans import nlmeans

rng = np.random.default_rng(0)
counts = rng.normal(20, 2, (8, 8, 8, 20)).round()
slices = rng.normal(1000, 5, (16, 16, 8)).round()
as_seen = True


def show(text, clean, images, least):
    global as_seen
    narrow, wide = clean(images.astype("i2")), clean(images.astype("f4"))
    print(f"{text}: mean {images.mean():.2f}, of int16 {narrow.mean():.2f}, of float32 {wide.mean():.2f}")
    as_seen &= abs(wide.mean() - images.mean()) < 0.15 and least < wide.mean() - narrow.mean() < 3 * least
    return np.abs(narrow - wide).max()


show("nlmeans", lambda images: nlmeans(images, 2.0), counts[..., 0], 0.4)
show("mppca", lambda images: mppca(images, patch_radius=1), counts, 0.4)
show("localpca", lambda images: localpca(images, sigma=2.0, patch_radius=1), counts, 0.4)
off = show("gibbs_removal", lambda images: gibbs_removal(images, inplace=False, num_processes=1), slices, 1)
print(f"    largest difference {off:.1f}")
as_seen &= off > 3
sys.exit(0 if as_seen else "This has changed.")
END
