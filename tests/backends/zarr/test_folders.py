"""Folders of datasets that others have a hand in: links, open files, names of documents."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import stat
import sys

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna import errors
from dosna.backends.folders import dataset, handle
from dosna.io import files

require("h5py")

BACKENDS = ["hdf5", "file"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


@pytest.fixture
def con(base, backend):
    with dn.Connection(str(base), backend=backend, engine="cpu") as connection:
        yield connection


@pytest.fixture
def other(tmp_path, backend):
    """Give another store, with datasets 'real' and 'group/deep'."""
    (tmp_path / "other").mkdir()
    with dn.Connection(str(tmp_path / "other"), backend=backend, engine="cpu") as there:
        there.create_dataset("real", data=np.arange(4.0), chunk_size=2)
        there.create_dataset("group/deep", data=np.arange(3.0), chunk_size=2)
    return tmp_path / "other"


def files_of(folder):
    """Give each file and link below a folder, with what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[str(path.relative_to(folder))] = (
            os.readlink(path)
            if stat.S_ISLNK(mode)
            else path.read_bytes()
            if stat.S_ISREG(mode)
            else None
        )
    return found


def replace(con, tmp_path):
    np.save(tmp_path / "new.npy", np.arange(9.0))
    con.ingest(tmp_path / "new.npy", "link", overwrite=True)


def empty_name(con, tmp_path):
    con["link"].delete()


REMOVALS = {
    "del_dataset": lambda con, tmp_path: con.del_dataset("link"),
    "delete": empty_name,
    "ingest": replace,
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_link_to_a_dataset_is_removed_as_a_link(con, base, other, tmp_path, removal):
    before = files_of(other)
    (base / "link").symlink_to(other / "real")
    assert list(con) == ["link"]
    REMOVALS[removal](con, tmp_path)
    assert files_of(other) == before
    assert list(con) == (["link"] if removal == "ingest" else [])
    assert not (base / "link").is_symlink()
    assert not [n for n in os.listdir(base) if n.startswith((".deleting", ".replacing"))]


def test_nothing_is_deleted_behind_a_link_that_leads_out(con, base, other):
    (base / "link").symlink_to(other)
    before = files_of(other)
    assert list(con) == ["link/group/deep", "link/real"]
    for name in list(con):
        with pytest.raises(errors.StorageError, match="leads out"):
            con.del_dataset(name)
    assert files_of(other) == before
    with pytest.raises(ZeroDivisionError):
        con.create_dataset("link/group/new", data=Failing())
    assert "link/group/deep" in con
    # Groups without a dataset are not cleared away there either.
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("link", (2,))
    assert (base / "link").is_symlink()


def test_an_empty_group_behind_a_link_stays(con, base, tmp_path):
    (tmp_path / "outside" / "empty").mkdir(parents=True)
    (base / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("link", (2,))
    assert (tmp_path / "outside" / "empty").is_dir()


class Failing:
    shape, dtype = (4,), np.dtype("f8")

    def __getitem__(self, key):
        raise ZeroDivisionError


def test_a_dataset_behind_a_link_within_the_store_is_deleted(con, base):
    con.create_dataset("real/a", data=[1])
    (base / "link").symlink_to("real")
    con.del_dataset("link/a")
    assert list(con) == []


def test_links_within_a_dataset_are_removed_as_links(con, base, tmp_path, backend):
    con.create_dataset("x", data=np.arange(4.0), chunk_size=2)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"kept")
    part = base / "x" / ("c" if backend == "file" else "folder")
    if backend == "file":
        part.rename(tmp_path / "elsewhere" / "c")
        part.symlink_to(tmp_path / "elsewhere" / "c")
    else:
        part.symlink_to(tmp_path / "elsewhere")
        chunk = base / "x" / "chunk_1.h5"
        chunk.rename(tmp_path / "elsewhere" / "chunk_1.h5")
        chunk.symlink_to(tmp_path / "elsewhere" / "chunk_1.h5")
    assert con["x"][...].tolist() == [0, 1, 2, 3]
    before = files_of(tmp_path / "elsewhere")
    con.del_dataset("x")
    assert files_of(tmp_path / "elsewhere") == before
    assert not (base / "x").exists()


def test_a_leftover_that_is_a_link_is_swept_as_a_link(base, other, backend):
    before = files_of(other)
    for number, step in enumerate(("creating", "deleting")):
        (base / f".{step}-0{number}").symlink_to(other / "real")
    with dn.Connection(str(base), backend=backend) as con:
        assert list(con) == []
    assert files_of(other) == before
    assert not [n for n in os.listdir(base) if n.startswith((".creating", ".deleting"))]


def test_links_that_lead_back_or_nowhere_do_not_end_a_listing(con, base):
    con.create_dataset("x", data=[1])
    con.create_dataset("group/y", data=[1])
    (base / "self").symlink_to(base)
    (base / "again").symlink_to(base)
    (base / "group" / "up").symlink_to(base)
    (base / "loop").symlink_to(base / "loop")
    (base / "gone").symlink_to(base / "nothing")
    assert list(con) == ["group/y", "x"]
    assert con.names_in("group") == ["group/up/x", "group/y"]
    for name in ("loop", "gone"):
        assert name not in con
        with pytest.raises(errors.DatasetNotFoundError):
            con[name]
        with pytest.raises(errors.DatasetNameError):
            con.create_dataset(name, (2,))


def test_a_folder_that_cannot_be_read_is_left_out_of_listings_with_a_warning(
    con, base, monkeypatch
):
    con.create_dataset("x", data=[1])
    con.create_dataset("secret/y", data=[1])
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match="secret cannot be read .*not listed"):
        assert list(con) == ["x"]


def test_what_is_no_file_makes_no_dataset(con, base):
    for make in (os.mkdir, os.mkfifo):
        name = f"odd-{make.__name__}"
        (base / name).mkdir()
        make(base / name / con.instance.description)
        assert name not in con
        with pytest.raises(errors.DatasetNotFoundError):
            con[name]
        with pytest.raises(errors.DatasetNotFoundError):
            con.del_dataset(name)
    with pytest.raises(errors.DatasetNameError):
        con.create_dataset("odd-mkfifo", (2,))
    assert list(con) == []


def test_datasets_of_names_that_are_refused_now_are_read_and_deleted(con, base, backend):
    if backend == "file":
        pytest.skip("such names could never be made on it")
    con.create_dataset("group/one", data=[1, 2])
    con.create_dataset("group/two", data=[3, 4])
    (base / "group" / "two").rename(base / "group" / "dataset.h5")
    assert list(con) == ["group/dataset.h5", "group/one"]
    assert con["group/dataset.h5"][...].tolist() == [3, 4]
    con.create_dataset("group/three", data=[5])
    con.del_dataset("group/dataset.h5")
    assert con["group/one"][...].tolist() == [1, 2]
    assert list(con) == ["group/one", "group/three"]


class KeptOpen:
    """Doubles `os.unlink` as on NFS, where files that are open stay under another name."""

    def __init__(self, monkeypatch):
        self.unlink, self.count = os.unlink, 0
        monkeypatch.setattr(os, "unlink", self)

    def __call__(self, path, *, dir_fd=None):
        where = os.fspath(path) if dir_fd is None else f"/proc/self/fd/{dir_fd}/{path}"
        if not self.is_open(os.lstat(where)):
            self.unlink(where)
        elif os.path.basename(where).startswith(".nfs"):
            raise OSError(16, "Device or resource busy", where)
        else:
            self.count += 1
            os.rename(where, os.path.join(os.path.dirname(where), f".nfs{self.count:08}"))

    @staticmethod
    def is_open(status):
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.path.samestat(os.stat(f"/proc/self/fd/{number}"), status):
                    return True
            except OSError:
                pass
        return False


def test_deleting_while_handles_are_open_on_a_network_file_system(
    con, base, backend, tmp_path, monkeypatch
):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the double needs /proc")
    double = KeptOpen(monkeypatch)
    ds = con.create_dataset("x", data=np.arange(40), chunk_size=10)
    ds[3:7] = 1
    con.del_dataset("x")
    assert double.count > 0
    assert [n for n in os.listdir(base) if n.startswith(".deleting-")]
    assert "x" not in con
    with pytest.raises(errors.DatasetNotFoundError):
        ds[...]
    again = con.create_dataset("x", data=[1])
    assert con.require_dataset("z", (3,)).shape == (3,)
    np.save(tmp_path / "v.npy", np.arange(5))
    con.ingest(tmp_path / "v.npy")
    with dn.Connection(str(base), backend=backend) as second:
        second.create_dataset("o", data=[1])
    with pytest.raises(ZeroDivisionError) as caught:
        con.create_dataset("bad", data=Failing())
    assert not hasattr(caught.value, "__notes__")
    again.delete()
    del ds, again, caught
    gc.collect()  # the error's traceback has a handle
    con.create_dataset("last", data=[1])
    con.del_dataset("last")
    assert not [n for n in os.listdir(base) if n.startswith(".deleting-")]
    assert sorted(con) == ["o", "v", "z"]


def test_an_error_of_cleaning_up_does_not_take_the_place_of_the_first(con, monkeypatch):
    def fail(name, only=None):
        raise errors.StorageError(5, "the disk is gone")

    monkeypatch.setattr(con.instance, "del_dataset", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        con.create_dataset("bad", data=Failing())
    assert "the disk is gone" in caught.value.__notes__[0]


def test_what_cannot_be_removed_is_a_warning_and_in_nobodys_way(con, base, monkeypatch):
    con.create_dataset("x", data=np.arange(4), chunk_size=2)
    unlink = os.unlink

    def refuse(path, *, dir_fd=None):
        if str(path).endswith(".lock") and ".deleting-" in str(path):
            raise PermissionError(13, "Permission denied", path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.warns(UserWarning, match="'x' is deleted, but .* cannot be removed: Permission"):
        con.del_dataset("x")
    assert "x" not in con
    con.create_dataset("x", data=[1])
    monkeypatch.undo()
    con.create_dataset("y", data=[1])
    assert not [n for n in os.listdir(base) if n.startswith(".deleting-")]


def copy_by_links(source, target):
    """Do what ``cp -al`` does."""
    for path in sorted([source, *source.rglob("*")]):
        made = target / path.relative_to(source)
        if path.is_dir():
            made.mkdir()
        else:
            os.link(path, made)


@pytest.mark.parametrize("other_handle", ["none", "opened before", "of another connection"])
def test_copies_by_hard_links_are_independent(con, base, backend, tmp_path, other_handle):
    start = np.repeat([0, 1, -1, -1], 10)
    ds = con.create_dataset("x", data=start, chunk_size=10, fillvalue=-1)
    ds.del_chunk((2,))
    ds.del_chunk((3,))
    second = {
        "none": lambda: None,
        "opened before": lambda: con["x"],
        "of another connection": lambda: dn.open_url(f"{backend}:{base}")[0],
    }[other_handle]()
    if other_handle == "of another connection":
        second.connect()
        second = second["x"]
    if second is not None:
        second[...]
    copy_by_links(base, tmp_path / "snap")
    before = files_of(tmp_path / "snap")
    ds[20:30] = 5  # a first write
    (second or ds)[30:] = 6
    ds[:10] = 100
    ds[15] = 3
    ds.attrs["n"] = 2
    assert files_of(tmp_path / "snap") == before
    ds.clear()
    (second or ds)[0] = 8
    ds.resize(25)
    ds.resize((45,))
    ds.append(np.arange(10))
    assert files_of(tmp_path / "snap") == before
    with dn.Connection(str(tmp_path / "snap"), backend=backend) as snap:
        copy = snap["x"]
        assert copy[...].tolist() == start.tolist()
        assert copy.verify().good
        assert copy.written_chunks() == [(0,), (1,)]
        mine = files_of(base)
        copy[25] = 9
        copy.clear()
        copy.resize(100)
        assert files_of(base) == mine
    again = con["x"]
    assert again.verify().good
    assert again[45:].tolist() == list(range(10))
    assert again[:1].tolist() == [8]
    if backend == "hdf5":
        (base / "x" / "chunk_0.h5").unlink()
        with pytest.raises(errors.ChunkNotFoundError):
            again[0]


def test_what_a_dead_writer_left_is_not_written_to(con, base, backend, tmp_path):
    ds = con.create_dataset("x", data=np.zeros(4), chunk_size=2)
    chunk = "c/1" if backend == "file" else "chunk_1.h5"
    (tmp_path / "kept").write_bytes(b"another file")
    for make in (os.link, os.symlink):
        make(tmp_path / "kept", base / "x" / f"{chunk}.tmp")
        ds[2:] = 7
        assert (tmp_path / "kept").read_bytes() == b"another file"
        assert ds[...].tolist() == [0, 0, 7, 7]


def test_a_pickled_handle_is_not_of_what_was_made_since(con, base, monkeypatch):
    ds = con.create_dataset("x", data=np.arange(4.0), chunk_size=2)
    text = pickle.dumps(ds)
    con.del_dataset("x")
    del ds
    con.create_dataset("x", data=np.arange(10.0, 14.0), chunk_size=2)
    uses = [
        lambda old: old[0],
        lambda old: old.__setitem__(0, 1),
        lambda old: old.__setitem__(slice(0, 2), 1),
        lambda old: old.append([1.0]),
        lambda old: old.attrs.update(a=1),
        lambda old: con.instance.del_dataset("x", old.instance),
    ]
    for use in uses:
        old = pickle.loads(text)
        # As on ext4, which uses an inode again at once, be it that others have taken it here.
        monkeypatch.setattr(old.instance, "_inode", os.stat(base / "x").st_ino)
        with pytest.raises((errors.StaleDatasetError, errors.DatasetNotFoundError)):
            use(old)
    assert con["x"][...].tolist() == [10, 11, 12, 13]
    assert dict(con["x"].attrs) == {}


def test_datasets_without_an_id_open(con, base, backend):
    if backend == "file":
        pytest.skip("those of other programs have none: tested with them")
    con.create_dataset("x", data=np.arange(4.0), chunk_size=2)
    from dosna.backends.hdf5 import chunkfile as h5format

    path = base / "x" / "dataset.h5"
    metadata, _ = h5format.read_description(path.read_bytes(), "x")
    storage = {k: v for k, v in metadata.storage.items() if k != "id"}
    path.write_bytes(h5format.redescribe(path.read_bytes(), metadata.replace(storage=storage)))
    old = pickle.loads(pickle.dumps(con["x"]))
    old[0] = 5
    assert old[...].tolist() == [5, 1, 2, 3]


def test_a_record_that_may_not_be_written_is_named(con, backend, monkeypatch):
    if backend == "file":
        pytest.skip("it has no record")
    from dosna.backends.hdf5 import folder as h5folder

    ds = con.create_dataset("x", (4,), chunk_size=2)
    ds[:2] = 1
    open_descriptor = h5folder.open_descriptor

    def refuse(path, flags, **options):
        if path == ".written-0" and flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return open_descriptor(path, flags, **options)

    monkeypatch.setattr(h5folder, "open_descriptor", refuse)
    mine = con["x"]
    for change in (lambda: mine.__setitem__(3, 1), lambda: mine.del_chunk((0,))):
        with pytest.raises(errors.StorageError, match=r"Permission denied \(\.written-0 may only"):
            change()
    mine[0] = 2  # written before, so the record stays as it is
    assert mine[...].tolist() == [2, 1, 0, 0]


def test_a_record_that_cannot_be_read_is_an_error_and_not_fill(con, backend, monkeypatch):
    if backend == "file":
        pytest.skip("it has no record")
    from dosna.backends.hdf5 import folder as h5folder

    con.create_dataset("x", (4,), chunk_size=2)
    open_descriptor = h5folder.open_descriptor

    def refuse(path, flags, **options):
        if path == ".written-0":
            raise PermissionError(13, "Permission denied")
        return open_descriptor(path, flags, **options)

    monkeypatch.setattr(h5folder, "open_descriptor", refuse)
    with pytest.raises(errors.StorageError, match="Permission denied"):
        con["x"]


def test_a_replacement_whose_maker_removes_it_while_others_sweep(con, base, backend, monkeypatch):
    from dosna.backends.folders import exchange as exchange

    con.create_dataset("x", data=[1])
    temporary = con.instance.begin_replacement("x")
    isdir = os.path.isdir

    def late(path):
        found = isdir(path)
        if str(path).endswith(temporary.partition("/")[0]):
            con.instance.end_replacement(temporary)
        return found

    monkeypatch.setattr(exchange.os.path, "isdir", late)
    with dn.Connection(str(base), backend=backend) as second:
        second.create_dataset("y", data=[1])
        assert list(second) == ["x", "y"]


def test_who_opens_what_is_replaced_meanwhile_gets_what_replaced_it(con, monkeypatch):
    con.ingest({"a": np.arange(3)})
    opened = handle.open_descriptor
    armed = True

    def slow(path, *args, **kwargs):
        nonlocal armed
        found = opened(path, *args, **kwargs)
        if armed and str(path).endswith(f"{os.sep}a"):
            armed = False
            con.ingest({"a": np.arange(4.0)}, overwrite=True)
        return found

    monkeypatch.setattr(handle, "open_descriptor", slow)
    assert con["a"][...].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert not armed


def test_verify_through_a_handle_on_what_was_replaced_is_an_error(con):
    con.ingest({"a": np.arange(1, 6)})
    handle = con["a"]
    con.ingest({"a": np.arange(1.0, 6.0)}, overwrite=True)
    with pytest.raises(errors.StaleDatasetError):
        handle.verify()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a system call of Linux")
def test_the_disk_begins_while_an_ingest_goes_on(con, base, backend, monkeypatch):
    begun = []
    begin = files._sync_file_range()
    monkeypatch.setattr(files, "_sync_file_range", lambda: lambda *a: begun.append(begin(*a)))
    values = np.random.default_rng(0).random((4, 1 << 15))
    con.ingest(values, "a", chunk_size=(1, 1 << 15))
    con.ingest(values, "small", chunk_size=(1, 1 << 10))
    assert begun == [0] * 4
    assert np.array_equal(con["a"][...], values)
    con["a"][...] = 1  # for which nobody waits
    with dn.Connection(str(base), backend=backend, ordered=False) as other:
        other.ingest(values, "b", chunk_size=(1, 1 << 15))
    assert len(begun) == 4


def test_an_array_gets_its_extent_back_when_an_append_fills_the_disk(con, base, monkeypatch):
    con.create_dataset("a", data=np.arange(8), chunk_size=2)
    write = dataset.replace_file

    def on_a_small_disk(*args, **kwargs):
        if sum(path.stat().st_size > 0 for path in base.rglob("*") if path.is_file()) >= 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*args, **kwargs)

    monkeypatch.setattr(dataset, "replace_file", on_a_small_disk)
    with pytest.raises(errors.StorageError, match="free some space"):
        con["a"].append(np.arange(40))
    assert con["a"][...].tolist() == list(range(8))


def test_a_group_whose_attributes_do_not_fit_on_the_disk_leaves_no_folder(con, base, monkeypatch):
    def on_a_full_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    con.create_dataset("there/a", data=np.arange(2))
    monkeypatch.setattr(files, "_write_parts", on_a_full_disk)
    for name in ("new/group", "there/new", "there", ""):
        with pytest.raises(errors.StorageError, match="free some space"):
            con.set_group_attrs(name, {"unit": "mm"})
    monkeypatch.undo()
    assert not (base / "new").exists()
    assert not (base / "there" / "new").exists()
    assert con["there/a"][...].tolist() == [0, 1]


@pytest.fixture(params=[True, False], ids=["ordered", "unordered"])
def writer(base, backend, request):
    """Give a connection on which chunks are overwritten by a rename, or by an exchange."""
    with dn.Connection(
        str(base), backend=backend, engine="cpu", ordered=request.param
    ) as connection:
        yield connection


def chunk_file(base, name):
    (found,) = [
        path
        for path in (base / name).rglob("*")
        if path.is_file() and (path.parent.name == "c" or path.name.startswith("chunk_"))
    ]
    return found


def test_who_has_a_chunk_open_keeps_the_old_one_however_often_it_is_overwritten(writer, base):
    ds = writer.create_dataset("x", data=np.arange(1000), chunk_size=1000)
    image = chunk_file(base, "x").read_bytes()
    with open(chunk_file(base, "x"), "rb", buffering=0) as old:
        before = old.read(100)
        for n in range(3):
            ds[...] = n
            assert (ds[...] == n).all()
        assert before + old.read() == image
    assert not list(base.rglob("*.tmp"))


def test_a_copy_by_hard_links_stays_as_it_was_when_a_chunk_is_overwritten(writer, base, tmp_path):
    ds = writer.create_dataset("x", data=np.arange(1000), chunk_size=1000)
    image = chunk_file(base, "x").read_bytes()
    os.link(chunk_file(base, "x"), tmp_path / "copy")
    for n in range(3):
        ds[...] = n
    assert (tmp_path / "copy").read_bytes() == image


def test_a_folder_in_the_place_of_a_chunk_is_an_error_and_stays(writer, base):
    ds = writer.create_dataset("x", data=np.arange(1000), chunk_size=1000)
    path = chunk_file(base, "x")
    path.unlink()
    path.mkdir()
    (path / "notes").write_text("kept")
    with pytest.raises(errors.StorageError, match="cannot write"):
        ds[...] = 1
    assert (path / "notes").read_text() == "kept"
    assert not list(base.rglob("*.tmp"))


def test_only_a_connection_that_is_not_ordered_exchanges_files(writer, base, monkeypatch):
    exchanged, renamed = [], []
    rename = os.rename

    def no_exchange(one, other, folder):
        exchanged.append(other)
        return False

    def renaming(one, other, **options):
        renamed.append(other)
        rename(one, other, **options)

    ds = writer.create_dataset("x", data=np.arange(1000), chunk_size=500)
    monkeypatch.setattr(files, "exchange", no_exchange)
    monkeypatch.setattr(os, "rename", renaming)
    ds[...] = 3  # also where the file system cannot exchange
    assert (ds[...] == 3).all()
    assert len(renamed) == 2
    assert exchanged == ([] if writer.instance.ordered else renamed)


def test_a_c_library_that_cannot_exchange_is_no_error(tmp_path, monkeypatch):
    from dosna.io import exchange

    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(exchange, "_renameat2", lambda: None)
    assert not exchange.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a").read_text() == "a"


def test_a_change_lists_the_folder_of_the_connection_once(con, base, monkeypatch):
    listed = []
    list_folder = os.listdir

    def listdir(path="."):
        listed.append(str(path) == str(base))
        return list_folder(path)

    monkeypatch.setattr(os, "listdir", listdir)
    for change in (
        lambda: con.create_dataset("x", data=np.arange(4)),
        lambda: con.create_dataset("y", data=np.arange(4)),
        lambda: con.del_dataset("x"),
    ):
        listed.clear()
        change()
        assert sum(listed) == 1
