"""What commands print."""

from __future__ import annotations

import io
import logging

from dosna.cli.console import LogFormatter


def test_messages_of_a_log_stay_in_their_line() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogFormatter())
    log = logging.Logger("own")
    log.addHandler(handler)
    log.warning("the dataset %s is missing", "a\n2026-01-01 WARNING all is lost\x1b[2J\r")
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        log.exception("it failed")
    first, second, *trace = out.getvalue().splitlines()
    said = r"WARNING the dataset a\n2026-01-01 WARNING all is lost\x1b[2J\r is missing"
    assert first.endswith(said)
    assert second.endswith("ERROR it failed")
    assert trace[0].startswith("Traceback")
