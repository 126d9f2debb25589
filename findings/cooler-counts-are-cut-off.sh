#!/bin/sh
# Coarsening or merging contact matrices should keep the number of contacts, or refuse counts that do not fit.
# cooler 0.11.0 stores counts as int32 unless a type is given, adds them up in a wider one and lets libhdf5
# put the largest number for what is larger: two bins of 2 billion contacts are one of 2147483647. So it is
# for 16 bits, which sums of a coarse level leave soon: 40000 + 40000 are 65535. zoomify does the same, the
# floats of a new matrix lose their fractions, and attribute "sum" has the total that is no longer in the
# file. No error or warning. The type of the input is kept for each level, and cannot be widened by merging.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    cooler==0.11.0 h5py==3.16.0 pandas==2.3.3 scipy==1.17.1 numpy==2.4.6 || exit 2
venv/bin/python -I -W error::RuntimeWarning -W error::UserWarning - <<'END'
import sys

import cooler
import pandas as pd

bins = pd.DataFrame({"chrom": "a", "start": [0, 10, 20, 30], "end": [10, 20, 30, 40]})


def make(name, counts, **options):
    pixels = pd.DataFrame({"bin1_id": [0, 0], "bin2_id": [0, 1], "count": counts})
    cooler.create_cooler(name, bins, pixels, **options)


def counts(name):
    file = cooler.Cooler(name)
    values = file.pixels()[:]["count"]
    return values.tolist(), float(file.info["sum"]), str(values.dtype)


make("many.cool", [2_000_000_000, 2_000_000_000])
make("short.cool", [40_000, 40_000], dtypes={"count": "u2"})
make("larger.cool", [3_000_000_000, 7])
make("weights.cool", [1.5, 2.5])
cooler.coarsen_cooler("many.cool", "many-coarse.cool", 2, chunksize=100)
cooler.zoomify_cooler("many.cool", "many.mcool", [20], chunksize=100)
cooler.coarsen_cooler("short.cool", "short-coarse.cool", 2, chunksize=100)
cooler.merge_coolers("merged.cool", ["many.cool", "many.cool"], mergebuf=100)
most = 2**31 - 1
as_seen = True
for name, stored, total in (
    ("many.cool", [2_000_000_000] * 2, 4_000_000_000),
    ("many-coarse.cool", [most], 4_000_000_000),
    ("many.mcool::/resolutions/20", [most], 4_000_000_000),
    ("merged.cool", [most, most], 8_000_000_000),
    ("short-coarse.cool", [65535], 80_000),
    ("larger.cool", [most, 7], 3_000_000_007),
    ("weights.cool", [1, 2], 4),
):
    found = counts(name)
    print(f"{name}: {found[0]} {found[2]}, 'sum' is {found[1]:.0f}")
    as_seen &= found[:2] == (stored, total)
sys.exit(0 if as_seen else "This has changed.")
END
