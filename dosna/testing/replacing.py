"""Conformance of replacing datasets: the old one stays until the new one is complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dosna as dn
from dosna import errors
from dosna.testing.base import Kit, MakeConnection
from dosna.testing.samples import check, sample


class ReplacingTests(Kit):
    """Tests that a replaced dataset is either the old or the new one, whatever goes wrong."""

    def _swaps(self, con: dn.Connection, name: str) -> bool:
        temporary = con.instance.begin_replacement(name)
        if temporary is None:
            return False
        con.instance.end_replacement(temporary)
        return True

    def _old(self, con: dn.Connection, name: str) -> tuple[dn.Dataset, Any]:
        data = sample((7, 5), "<f8")
        ds = self.create(con, name, data=data, chunk_size=(3, 2), attrs={"unit": "mm"})
        return ds, data

    def test_ingest_replaces_a_dataset(
        self, con: dn.Connection, make_connection: MakeConnection, name: str
    ) -> None:
        old, _ = self._old(con, name)
        self.create(con, name + "-beside/x", data=[1])
        names = list(con)
        new = sample((9, 4), "<i4")
        with pytest.raises(errors.DatasetExistsError):
            con.ingest(new, name)
        report = con.ingest(new, name, overwrite=True, chunk_size=(4, 4), **self.create_options)
        assert report.made == [name]
        assert list(con) == names
        found = con[name]
        assert found.name == name
        assert not found.incomplete
        assert dict(found.attrs) == {}
        check(found[...], new)
        with make_connection() as again:
            check(again[name][...], new)
        found[0] = 3
        check(con[name][0], np.full(4, 3, "<i4"))
        if self._swaps(con, name):
            with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError)):
                old[...]
            with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError)):
                old[0] = 1
        con.del_dataset(name)
        assert name not in con

    def test_what_cannot_be_made_leaves_the_old(self, con: dn.Connection, name: str) -> None:
        _, data = self._old(con, name)
        names = list(con)
        good = np.arange(6.0)
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (np.array([None]), {}),
            (good, {"compression": "no such"}),
            (good, {"misspelt": 1}),
            (good, {"checksum": "perhaps", "shards": "no"}),
            (good, {"chunk_size": (1, 1)}),
            (good, {"chunk_size": (0,)}),
        ]
        for what, options in wrong:
            with pytest.raises((errors.DosnaError, TypeError, ValueError)):
                con.ingest(what, name, overwrite=True, **options)
            assert list(con) == names
            check(con[name][...], data)
            assert dict(con[name].attrs) == {"unit": "mm"}
        if np.longdouble().itemsize > 8:  # some backends take it
            wide = np.zeros(3, np.longdouble)
            try:
                con.ingest(wide, name, overwrite=True, **self.create_options)
            except (errors.RefusedError, errors.ConfigurationError):
                check(con[name][...], data)
            else:
                check(con[name][...], wide)

    def test_a_replacement_that_fails_leaves_the_old(self, con: dn.Connection, name: str) -> None:
        if not self._swaps(con, name):
            pytest.skip("the backend deletes first: its documentation says so")
        old, data = self._old(con, name)
        names = list(con)
        new = np.arange(64.0)
        for point in range(12):
            told = 0

            def stop(done: int, total: int, point: int = point) -> None:
                nonlocal told
                told += 1
                if told > point:
                    raise ZeroDivisionError

            try:
                con.ingest(new, name, overwrite=True, chunk_size=(8,), progress=stop)
            except ZeroDivisionError:
                assert list(con) == names
                check(con[name][...], data)
                check(old[...], data)
            else:
                assert point > 0
                break
        else:
            assert told == 12
            con.ingest(new, name, overwrite=True, chunk_size=(8,))
        check(con[name][...], new)

    def test_a_replacement_of_what_somebody_deletes(self, con: dn.Connection, name: str) -> None:
        if not self._swaps(con, name):
            pytest.skip("the backend deletes first")
        self._old(con, name)
        metadata = self.create(con, name + "-like", (4,), "i4").instance.metadata
        options = con[name + "-like"].instance.create_options
        with con.replacing(name, metadata, options) as made:
            con.wrap(made)[...] = 5
            con.del_dataset(name)
            assert name not in con
        check(con[name][...], np.full(4, 5, "i4"))

        def replace() -> None:
            with con.replacing(name, metadata, options):
                con.del_dataset(name)
                self.create(con, name + "/below", data=[7])

        with pytest.raises((errors.DatasetExistsError, errors.DatasetNameError)):
            replace()
        check(con[name + "/below"][...], np.array([7]))
        assert name not in con
