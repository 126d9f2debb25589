#!/bin/sh
# ak.to_arrow and ak.to_arrow_table of Awkward 2.14.0 convert optional strings and optional lists, as
# long as one of them is there. Where all are missing and the content is empty, which is how masks
# and slices, or a range of a file without such values, leave them, they raise an IndexError from
# within, and for lists of fixed size an ArrowInvalid about the count of nulls. So data that are
# converted in chunks fail at the first chunk in which nothing is present. Numbers and records do
# not, and ak.to_packed is no remedy. An element of content that nothing refers to is one.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    awkward==2.14.0 numpy==2.4.6 pyarrow==26.0.1 || exit 2
venv/bin/python -I - <<'END'
import sys

import awkward as ak


def missing(example, repaired=False):
    """Two missing values of the type of an example."""
    content = ak.to_layout(example)[:0].to_packed()
    if repaired:
        content = content.form.length_one_array(highlevel=False)
    return ak.Array(ak.contents.IndexedOptionArray(ak.index.Index64([-1, -1]), content))


def outcome(array):
    try:
        return ak.to_arrow(array, extensionarray=False).to_pylist()
    except Exception as error:
        return type(error).__name__


examples = {
    "strings": ak.Array(["a"]),
    "lists": ak.Array([[1.0]]),
    "of fixed size": ak.to_regular(ak.Array([[1.0, 2.0]])),
    "numbers": ak.Array([1.0]),
}
found = {}
for name, example in examples.items():
    plain, packed = missing(example), ak.to_packed(missing(example))
    found[name] = outcome(plain), outcome(packed), outcome(missing(example, repaired=True))
    print(f"{name}: {plain.type}, as it is {found[name][0]}, packed {found[name][1]}, ", end="")
    print(f"with an element {found[name][2]}")
as_seen = found == {
    "strings": ("IndexError", "IndexError", [None, None]),
    "lists": ("IndexError", "IndexError", [None, None]),
    "of fixed size": ("ArrowInvalid", "ArrowInvalid", [None, None]),
    "numbers": ([None, None], [None, None], [None, None]),
}
sys.exit(0 if as_seen else "This has changed.")
END
