#!/bin/sh
# A signal of NMR that was scaled or filtered has small and fractional numbers, and one would expect the file to
# keep them, or the writing to be refused. nmrglue 0.12 converts a signal to Bruker's format, and writes it as
# integers of 32 bits, cut off towards zero: of a signal that was normalized to 1, all else is 0, and what is above
# 2**31 becomes -2**31. Nothing is said of the digits, and of large numbers only NumPy's cast warns. Bruker's newer
# files of float64 (DTYPA = 2) are written when the dictionary says so, and keep the signal.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    nmrglue==0.12 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import warnings

import nmrglue
import numpy as np

signal = np.zeros(128, "c16")
signal[:6] = 1.0, 0.75 - 0.5j, -0.25j, 1e-3, 2.7, -3.5
about = nmrglue.fileiobase.create_blank_udic(1)
about[0]["size"] = len(signal)


def kept(values, **parameters):
    convert = nmrglue.convert.converter()
    convert.from_universal(about, values)
    dic, data = convert.to_bruker()
    dic["acqus"].update(parameters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nmrglue.bruker.write("written", dic, data, overwrite=True)
    print("warnings:", [str(one.message) for one in caught])
    with warnings.catch_warnings():  # of another shape than the dictionary has
        warnings.simplefilter("ignore")
        return nmrglue.bruker.read("written")[1][: len(values)]


plain = kept(signal)
print("written:", signal[:7].tolist(), "read:", plain[:7].tolist(), sep="\n    ")
as_seen = plain[:7].tolist() == [1, 0, 0, 0, 2, -3, 0]
large = kept(np.full(128, 1e10, "c16"))
print("1e10 is", large[0])
as_seen &= large[0].real == -(2**31)
double = kept(signal, DTYPA=2)
print("as float64:", double[:7].tolist(), sep="\n    ")
as_seen &= bool(np.array_equal(double, signal))
sys.exit(0 if as_seen else "This has changed.")
END
