#!/bin/sh
# A histogram that was saved should add up like the one in memory. The serialization of UHI, by which
# boost-histogram 1.8.1 and hist write JSON and HDF5 (here JSON, by uhi 1.2.1), stores a profile with the
# variances of its bins, and of a bin with one entry that is NaN, where the histogram in memory has a sum of squares
# of 0. So after reading, such a bin has NaN for ever: filled a thousand times more, or added up over the files of
# a run, it has no error any more, where the histograms in memory have the right one. Of weighted means, empty bins do
# it too, so that a bin that was empty in one file is lost. Counts and means are right, and nothing is said. The
# tails of spectra have few entries in each job.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    boost-histogram==1.8.1 uhi==1.2.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import json
import sys

import boost_histogram as bh
import numpy as np
import uhi.io.json

as_seen = True


def returned(histogram):
    text = json.dumps(histogram, default=uhi.io.json.default)
    return bh.Histogram(json.loads(text, object_hook=uhi.io.json.object_hook))


def show(text, histogram, expected):
    global as_seen
    found = histogram.variances().round(3)
    print(f"{text}: values {histogram.values().round(3).tolist()}, variances {found.tolist()}")
    as_seen &= np.array_equal(found, expected, equal_nan=True)


for storage in (bh.storage.Mean, bh.storage.WeightedMean):
    axis = bh.axis.Integer(0, 3, underflow=False, overflow=False)
    job, other = bh.Histogram(axis, storage=storage()), bh.Histogram(axis, storage=storage())
    job.fill([0, 1, 1], sample=[1, 2, 4])
    other.fill([0, 0, 0, 1, 1, 1, 2, 2], sample=[3, 5, 7, 1, 2, 3, 5, 7])
    right = (job + other).variances().round(3)
    as_seen &= np.isfinite(right).all()
    show(f"{storage.__name__}, 1, 2 and 0 entries and 3, 3 and 2", job + other, right)
    read = returned(job) + returned(other)
    as_seen &= np.allclose(read.values(), (job + other).values())
    show("    after JSON", read, [np.nan, right[1], right[2] if storage is bh.storage.Mean else np.nan])
    for text, more in (("    filled further", job.copy()), ("    after JSON, filled further", returned(job))):
        more.fill([0, 1, 2] * 1000, sample=np.arange(3000))
        show(text, more, more.variances().round(3))
        as_seen &= np.isnan(more.variances()[0]) == text.startswith("    after")
sys.exit(0 if as_seen else "This has changed.")
END
