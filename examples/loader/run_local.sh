#!/bin/sh
# A watcher, loaders and verifiers as processes of this machine, until Ctrl-C.
set -eu

usage() {
    cat <<'END'
usage: sh run_local.sh [--load N] [--diff N] [--once] [OPTION ...]

Starts one `dosna loader watch`, N (2) of `load` and N (1) of `diff` with the config.yml of this
folder. Each OPTION goes to all of them, such as --secrets secrets.yml or --log-level warning.

--once   list once, and end when all is loaded and verified; exit 1 if any file failed

Ctrl-C or SIGTERM ends them all: files are finished, or given back.
END
}

load=2
diff=1
once=
while [ $# -gt 0 ]; do
    case $1 in
    --help | -h)
        usage
        exit 0
        ;;
    --load | --diff)
        case ${2-} in
        '' | *[!0-9]*)
            printf 'run_local.sh: %s takes a number (see --help)\n' "$1" >&2
            exit 2
            ;;
        esac
        if [ "$1" = --load ]; then load=$2; else diff=$2; fi
        shift 2
        ;;
    --once)
        once=--once
        shift
        ;;
    *) break ;;
    esac
done

pids=
stop() {
    # shellcheck disable=SC2086  # a list of processes
    [ -z "$pids" ] || kill -TERM $pids 2>/dev/null || :
}
trap stop INT TERM

start() {
    # Ctrl-C reaches all of the terminal's processes: one signal from here is enough.
    (
        trap '' INT
        exec dosna loader "$@"
    ) &
    pids="$pids $!"
}

dosna loader init --quiet "$@" >/dev/null
# shellcheck disable=SC2086  # nothing, or one option
if [ -n "$once" ]; then
    dosna loader watch --once "$@"
else
    start watch "$@"
fi
n=0
while [ "$n" -lt "$load" ]; do
    # shellcheck disable=SC2086
    start load $once "$@"
    n=$((n + 1))
done
n=0
while [ "$n" -lt "$diff" ]; do
    # shellcheck disable=SC2086
    start diff $once "$@"
    n=$((n + 1))
done

status=0
for pid in $pids; do
    # A signal ends the wait, so the process is waited for once more.
    wait "$pid" || wait "$pid" || status=1
done
if [ -n "$once" ]; then
    dosna loader status "$@" || status=1
fi
exit "$status"
