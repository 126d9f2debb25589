#!/bin/sh
# Unsigned numbers of a NeXus file should be loaded as what they are, into a wider type if need be.
# scippnexus 26.1.1 (scipp 26.8.0, h5py 3.16.0) lets libhdf5 read uint32 into int32 and uint64 into
# int64, which puts the largest signed number for all that lie above it: times of 2.5 s and 4 s in
# nanoseconds of uint32 are both 2.147483647 s, as an offset of events and as the time of a log, and
# detectors with different numbers become the same one. No error or warning. int64 would hold uint32.
# h5py alone reads all of them rightly.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    scippnexus==26.1.1 scipp==26.8.0 h5py==3.16.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys

import h5py
import numpy as np
import scippnexus as snx

nanoseconds = [7, 2_500_000_000, 4_000_000_000]
numbers = [5, 3_000_000_000, 3_000_000_001]
with h5py.File("x.nxs", "w") as file:
    for name, kind in (("log", "NXlog"), ("events", "NXevent_data")):
        file.create_group(name).attrs["NX_class"] = kind
    file["log/time"] = np.array(nanoseconds, "u4")
    file["log/value"] = np.array([1.0, 2.0, 3.0])
    file["events/event_time_offset"] = np.array(nanoseconds, "u4")
    file["events/event_id"] = np.array(numbers, "u4")
    file["events/event_time_zero"] = np.array([0], "u8")
    file["events/event_index"] = np.array([0], "u8")
    for name in ("log/time", "events/event_time_offset", "events/event_time_zero"):
        file[name].attrs["units"] = "ns"

with h5py.File("x.nxs") as file:
    assert file["log/time"][()].tolist() == nanoseconds
with snx.File("x.nxs") as file:
    log = file["log"][()]
    events = file["events"][()].bins.constituents["data"]
times = log.coords["time"].values.astype("i8").tolist()
offsets, ids = (events.coords[name] for name in ("event_time_offset", "event_id"))
print("times in the file: ", nanoseconds)
print("times of the log:  ", times)
print("offsets of events: ", offsets.values.tolist(), offsets.dtype)
print("detectors:         ", numbers, "loaded as", ids.values.tolist())
most = 2**31 - 1
as_seen = times == offsets.values.tolist() == [7, most, most]
as_seen &= ids.values.tolist() == [5, most, most]
sys.exit(0 if as_seen else "This has changed.")
END
