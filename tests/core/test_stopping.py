"""Reading that another thread stops between two chunks."""

from __future__ import annotations

import numpy as np
import pytest

import dosna as dn
from dosna.core.stopping import stoppable
from dosna.errors import Stopped
from dosna.testing import CountingStore, MemoryStore, use_store


@pytest.mark.parametrize("backend", ["ram", "file"])
@pytest.mark.parametrize(("engine", "options"), [("cpu", {}), ("joblib", {"njobs": 2})])
def test_a_read_that_was_stopped_raises(backend, engine, options, tmp_path):
    with dn.Connection(str(tmp_path), backend=backend, engine=engine, engine_kw=options) as con:
        ds = con.create_dataset("x", data=np.arange(100.0), chunk_size=10)
        with stoppable() as stop:
            assert ds[...].sum() == 4950
            assert ds[::3].sum() == sum(range(0, 100, 3))
            stop.set("nobody waits")
            stop.set("later")
            with pytest.raises(Stopped, match="nobody waits"):
                ds[...]
        assert ds[...].sum() == 4950


class Stopper(CountingStore):
    """A store that stops the work at the third request for a chunk."""

    stop = None

    def request(self, kind, key, call):
        found = super().request(kind, key, call)
        if self.stop is not None and self.requests["get"] == 3:
            self.stop.set("enough")
        return found


def test_no_chunk_is_read_after_the_stop():
    store = Stopper(MemoryStore())
    use_store("stopped", store)
    with dn.Connection("stopped", backend="memory") as con:
        ds = con.create_dataset("x", data=np.arange(100.0), chunk_size=10)
        store.reset()
        with stoppable() as store.stop, pytest.raises(Stopped, match="enough"):
            ds[...]
        assert store.requests["get"] == 3
