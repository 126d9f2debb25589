#!/bin/sh
# An RNTuple field of std::variant should hold the same values however many clusters are read at
# once. With uproot 5.7.7 it does not: the column that says where each value lies counts from the
# beginning of its cluster, and uproot does not add what earlier clusters hold. Entries behind the
# first cluster of a read become values of the first, without a warning; a read that stays inside
# one cluster is right. Who reads such a field by chunks gets numbers that depend on the size of
# the chunks. Seen: entries 10 to 14 are 0, 1, 'ss', 3, 'ssss' where 10, 11, ... were written.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    uproot==5.7.7 awkward==2.14.0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import sys
import awkward as ak
import uproot

written = [i if i % 2 else "s" * (i % 5) + str(i) for i in range(30)]
with uproot.recreate("variant.root") as file:
    ntuple = file.mkrntuple("events", {"v": ak.Array(written[:10])})
    for start in (10, 20):
        ntuple.extend({"v": ak.Array(written[start : start + 10])})

events = uproot.open("variant.root")["events"]
clusters = [(c.num_first_entry, c.num_entries) for c in events.cluster_summaries]
print("clusters (first entry, entries):", clusters)


def read(start, stop):
    return events.arrays(entry_start=start, entry_stop=stop).v.to_list()


alone = [read(first, first + count) == written[first : first + count] for first, count in clusters]
together = read(0, 30)
print("each cluster alone is right:", alone)
print("written, entries 8 to 13:   ", written[8:14])
print("read with all clusters:     ", together[8:14])
first_again = all(together[i] in written[:10] for i in range(30))
print("all of them are values of the first cluster:", first_again)

as_seen = alone == [True] * 3 and together[:10] == written[:10] and first_again
sys.exit(0 if as_seen else "This has changed.")
END
