#!/bin/sh
# Runs examples/quickstart.py with its arguments, in ./.venv, which it sets up if need be.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$here/venv.sh"
make_venv
exec "$python" "$here/examples/quickstart.py" "$@"
