"""The example of an adapter for tiled, where tiled is installed (it needs a gigabyte)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import dosna as dn

pytest.importorskip("tiled.server")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VOLUME = np.arange(4 * 6 * 5, dtype="f4").reshape(4, 6, 5)
RECORDS = np.array([(1, 2.5), (3, 4.5)], [("n", "i4"), ("x", "f8")])


@pytest.fixture
def client(monkeypatch, tmp_path):
    from tiled.client import Context, from_context
    from tiled.server.app import build_app

    monkeypatch.syspath_prepend(EXAMPLES)
    with dn.Connection(str(tmp_path), backend="file") as con:
        attrs = {"unit": "mm", "angles": np.array([1, 2])}
        con.create_dataset("entry/tomo", data=VOLUME, chunk_size=(2, 3, 5), attrs=attrs)
        con.create_dataset("entry/deep/records", data=RECORDS)
        con.create_dataset("entry/dates", data=np.array(["2026-01-02"], "M8[D]"))
        con.create_dataset("entry/notes", data=["text"], dtype=str)
        con.set_group_attrs("entry", {"NX_class": "NXentry"})
    monkeypatch.setenv("DOSNA_URL", f"file:{tmp_path}")
    monkeypatch.delitem(sys.modules, "tiled_adapter", raising=False)
    import tiled_adapter

    with Context.from_app(build_app(tiled_adapter.tree)) as context:
        yield from_context(context)


def test_clients_of_tiled_read_datasets(client):
    assert sorted(client["entry"]) == ["dates", "deep", "tomo"]
    assert client["entry"].metadata["NX_class"] == "NXentry"
    tomo = client["entry/tomo"]
    assert dict(tomo.metadata) == {"unit": "mm", "angles": [1, 2]}
    assert tomo.chunks == ((2, 2), (3, 3), (5,))
    assert np.array_equal(tomo[1:3, ::2, 4], VOLUME[1:3, ::2, 4])
    assert np.array_equal(tomo.read(), VOLUME)
    assert np.array_equal(tomo.read_block((1, 0, 0)), VOLUME[2:, :3])
    assert np.array_equal(client["entry/deep/records"].read(), RECORDS)
    assert client["entry/dates"].read().tolist() == np.array(["2026-01-02"], "M8[D]").tolist()
