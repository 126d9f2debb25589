#!/bin/sh
# The error of a weighted mean should not depend on the unit of the weights. variances() of
# boost-histogram 1.8.1 with WeightedMean storage divides the variance of the samples by the sum of
# weights, not by their effective number: of the same 10,000 samples of spread 1 the error of the
# mean is 0.01 with weights of 1, 0.1 with weights of 0.01 and 0.001 with weights of 100. Its text
# says that it returns the variance of the samples, to be divided by counts(); that gives 0.0001,
# 0.001 and 0.00001. profile() of hist 2.12.1 over a weighted histogram has the right scale, but not
# where weights and values are correlated: samples of 10 with weight 1 and one 0 with weight 10 have
# a negative variance, and an error of NaN. Nothing is said. Simulated events are scaled by such
# weights to a luminosity.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    boost-histogram==1.8.1 hist==2.12.1 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import boost_histogram as bh
import hist
import numpy as np

rng = np.random.default_rng(0)
samples = rng.normal(50, 1, 10_000)
samples = (samples - samples.mean()) / samples.std(ddof=1) + 50
where = np.full(samples.size, 0.5)
as_seen = True
for scale in (1, 0.01, 100):
    weights = np.full(samples.size, float(scale))
    mean = bh.Histogram(bh.axis.Regular(1, 0, 1), storage=bh.storage.WeightedMean())
    mean.fill(where, sample=samples, weight=weights)
    error = float(np.sqrt(mean.variances()[0]))
    by_text = float(np.sqrt(mean.variances()[0] / mean.counts()[0]))
    plane = hist.Hist(
        hist.axis.Regular(1, 0, 1, name="x"),
        hist.axis.Regular(4000, 40, 60, name="y"),
        storage=hist.storage.Weight(),
    )
    plane.fill(x=where, y=samples, weight=weights)
    profile = float(np.sqrt(plane.profile("y").variances()[0]))
    print(f"weights of {scale}: counts {mean.counts()[0]:.0f}, error of the mean {error:.6f},")
    print(f"    as the text says {by_text:.6f}, profile of hist {profile:.6f}; right is 0.010000")
    as_seen &= np.allclose([error, by_text], [0.01 / scale**0.5, 1e-4 / scale**0.5], rtol=1e-6)
    as_seen &= abs(profile - 0.01) < 2e-6

values, weights = np.array([10.0] * 100 + [0.0]), np.array([1.0] * 100 + [10.0])
plane = hist.Hist(
    hist.axis.Regular(1, 0, 1, name="x"),
    hist.axis.Regular(11, -0.5, 10.5, name="y"),
    storage=hist.storage.Weight(),
)
plane.fill(x=np.full(101, 0.5), y=values, weight=weights)
variance = plane.profile("y").variances()[0]
average = np.average(values, weights=weights)
true = np.sum((weights * (values - average)) ** 2) / weights.sum() ** 2
print(f"correlated weights: variance of the mean {variance:.3f}, right is {true:.3f}")
as_seen &= variance < -0.1 and true > 0.6
sys.exit(0 if as_seen else "This has changed.")
END
