#!/bin/sh
# gzip_decompress of the package deflate 0.9.0, Python's binding of libdeflate, is faster than zlib
# for whole chunks, and one expects of it what gzip.decompress of the standard library does: all
# members of a stream (RFC 1952, section 2.2), as bgzip, pigz -i and appending with cat write them.
# It returns the first member alone, although it was told the length of everything. No error, no
# warning. A reader that knows the length must compare it, and go on by itself.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check deflate==0.9.0 || exit 2
venv/bin/python -I - <<'END'
import gzip
import sys
import deflate

parts = [b"rows 0 to 9 ", b"rows 10 to 19 ", b"rows 20 to 29"]
whole = b"".join(parts)
stream = b"".join(map(gzip.compress, parts))
by_gzip = gzip.decompress(stream)
by_deflate = bytes(deflate.gzip_decompress(stream, len(whole)))
print("gzip:", by_gzip)
print("deflate:", by_deflate)
as_seen = by_gzip == whole and by_deflate == parts[0]
sys.exit(0 if as_seen else "This has changed.")
END
