"""Plug-ins of other packages, installed as pip does it: by a dist-info folder on the path."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from support import HANG, require

from dosna import errors, registry

ROOT = Path(__file__).resolve().parents[2]

RAW = """
from dosna.sources import Claims
from dosna.sources import SourceKind
from dosna.sources import ArrayDescription, Source
import numpy as np

class Raw(Source):
    def names(self):
        return ["frames"]
    def describe(self, name):
        return ArrayDescription(name, (4,), np.dtype("<u2"))
    def fingerprint(self):
        return "4"
    def read(self, name, box):
        return np.fromfile(self.location, "<u2")[box]

KIND = SourceKind("raw", Raw, Claims(suffixes=(".raw",), schemes=("raw",)))
print("LOADED raw")
"""

SUBCLASS = """
from dosna.sources import Claims
from dosna.sources import SourceKind
from dosna.sources.hdf5.source import H5Source

class Mine(H5Source):
    pass

KIND = SourceKind("mine", Mine, Claims(suffixes=(".mine",)))
print("LOADED mine")
"""

CODEC = """
import bz2
from dosna.codecs import BytesBytesCodec, CodecKind

class Bz2(BytesBytesCodec):
    def encode(self, data):
        return [bz2.compress(data)]
    def decode(self, data, into):
        return bz2.decompress(data)

KIND = CodecKind("bz2", Bz2)
print("LOADED bz2")
"""

BROKEN = "import no_such_package_of_anybody\n"
RAISES = "raise ZeroDivisionError('at import')\n"
EXITS = "import sys\nsys.exit('it has had enough')\n"
WRONG = "KIND = 3\n"
SLOW = "import time\ntime.sleep(3600)\n"


class Site:
    """A folder of installed packages."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, name, code, groups):
        (self.folder / f"{name}_package.py").write_text(code)
        info = self.folder / f"{name}_package-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.2\n"
        )
        text = "".join(
            f"[{group}]\n" + "".join(f"{entry} = {name}_package:{to}\n" for entry, to in entries)
            for group, entries in groups.items()
        )
        (info / "entry_points.txt").write_text(text)

    def source(self, name, code, **claims):
        """Install a source, which tells its claims or does not."""
        told = {
            f"dosna.sources.{claim}": [(entry, "KIND") for entry in entries]
            for claim, entries in claims.items()
        }
        self.install(name, code, {"dosna.sources": [(name, "KIND")], **told})

    def run(self, code):
        program = "import numpy as np, dosna as dn\n" + textwrap.dedent(code)
        return subprocess.run(
            [sys.executable, "-W", "always", "-c", program],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{self.folder}"},
            capture_output=True,
            text=True,
            timeout=HANG,
        )

    def prints(self, code):
        ran = self.run(code)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines(), ran.stderr


@pytest.fixture
def site(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4))
    np.arange(4, dtype="<u2").tofile(tmp_path / "a.raw")
    return Site(tmp_path)


INGEST = """
    with dn.Connection("x", backend="ram") as con:
        print(con.ingest("a.npy").made, con.ingest({"b": np.arange(3)}).made)
        print(con.ingest(np.arange(3), "c").made)
    """


@pytest.mark.parametrize("code", [BROKEN, RAISES, EXITS, WRONG, SLOW, SUBCLASS, RAW])
@pytest.mark.parametrize("told", [True, False])
def test_what_does_not_use_a_plug_in_does_not_load_it(site, code, told):
    claims = {"suffixes": [".raw", ".mine"], "packages": ["nobody"]} if told else {}
    site.source("mine", code, **claims)
    site.install("other", code, {"dosna.backends": [("other", "KIND")]})
    site.install("third", code, {"dosna.engines": [("third", "KIND")]})
    lines, err = site.prints(
        f"""
    import dosna.backends, dosna.engines
    assert "other" in dosna.backends.AVAILABLE and "third" in dosna.engines.AVAILABLE
    {INGEST}"""
    )
    assert lines == ["['a'] ['b']", "['c']"]
    assert "Warning" not in err


@pytest.mark.parametrize("code", [BROKEN, RAISES, EXITS, WRONG])
def test_a_plug_in_that_cannot_be_loaded_is_left_out_with_a_warning(site, code):
    site.source("broken", code)
    site.source("raw", RAW)
    lines, err = site.prints(
        """
    with dn.Connection("x", backend="ram") as con:
        print(con.ingest("a.raw").made, con["frames"][...].tolist())
        con.ingest("a.raw")
        open("a.unknown", "w").close()
        for use in (lambda: con.ingest("a.unknown"), lambda: con.ingest("a.raw", kind="broken")):
            try:
                use()
            except dn.errors.DosnaError as error:
                print(type(error).__name__, error)
    """
    )
    assert lines[:2] == ["LOADED raw", "['frames'] [0, 1, 2, 3]"]
    assert err.count("UserWarning") == 1
    assert "broken_package:KIND" in err
    assert "of broken-package 1.2" in err
    assert lines[2].startswith("SourceError")
    assert lines[3].startswith(("MissingDependencyError", "ConfigurationError"))
    assert "of broken-package 1.2" in lines[3]


def test_one_that_says_what_it_takes_is_loaded_for_that_alone(site):
    site.source("raw", RAW, suffixes=[".raw"], schemes=["raw"])
    site.source("broken", SLOW)
    lines, err = site.prints(
        """
    from dosna.sources import registry as sources
    assert sources.claims()["raw"].suffixes == (".raw",)
    with dn.Connection("x", backend="ram") as con:
        con.ingest("a.npy")
        print("others")
        print(con.ingest("a.raw").made)
    """
    )
    assert lines == ["others", "LOADED raw", "['frames']"]
    assert "Warning" not in err


@pytest.mark.parametrize("told", [True, False])
def test_one_may_subclass_a_source_of_dosna(site, told):
    h5py = require("h5py")
    with h5py.File(site.folder / "a.mine", "w") as file:
        file["x"] = [1, 2]
    with h5py.File(site.folder / "a.h5", "w") as file:
        file["y"] = [3]
    site.source("mine", SUBCLASS, **({"suffixes": [".mine"]} if told else {}))
    lines, err = site.prints(
        """
    with dn.Connection("x", backend="ram") as con:
        print(con.ingest("a.h5").made)
        print(con.ingest("a.mine").made, type(dn.sources.open_source("a.mine")).__name__)
    """
    )
    assert lines == ["['y']", "LOADED mine", "['x'] Mine"]
    assert "Warning" not in err


def test_a_broken_backend_or_engine_says_whose_it_is(site):
    site.install("other", BROKEN, {"dosna.backends": [("other", "KIND")]})
    site.install("third", WRONG, {"dosna.engines": [("third", "KIND")]})
    lines, _ = site.prints(
        """
    for kind in ({"backend": "other"}, {"engine": "third"}):
        try:
            dn.use(**kind)
        except dn.errors.DosnaError as error:
            print(type(error).__name__, error)
    dn.use(backend="ram", engine="cpu")
    """
    )
    assert lines[0].startswith("MissingDependencyError")
    assert "of other-package 1.2" in lines[0]
    assert lines[1].startswith("ConfigurationError")
    assert "is a int, not a Engine" in lines[1]


def test_registered_ones_are_available(site):
    lines, _ = site.prints(
        """
    import dosna.backends, dosna.engines
    from dosna.backends import Backend
    from dosna.engines import Engine
    from dosna.backends import registry as backends
    from dosna.engines import registry as engines
    from dosna.backends.ram import RamConnection
    from dosna.engines.cpu import CpuRunner
    backends.register(Backend("mine", RamConnection))
    engines.register(Engine("own", CpuRunner))
    print("mine" in dosna.backends.AVAILABLE, "own" in dosna.engines.AVAILABLE)
    print(dosna.backends.AVAILABLE.count("ram"))
    """
    )
    assert lines == ["True True", "1"]


def test_a_codec_is_loaded_for_the_arrays_that_it_encodes(site):
    require("crc32c")
    (site.folder / "store").mkdir()
    site.install("bz2", CODEC, {"dosna.codecs": [("bz2", "KIND")]})
    site.install("wrong", WRONG, {"dosna.codecs": [("wrong", "KIND")]})
    lines, _ = site.prints(
        """
    from dosna.codecs import registry
    with dn.Connection("store", backend="file") as con:
        con.create_dataset("a", data=np.arange(9), compression="gzip")
        print("bz2" in registry.names)
        con.create_dataset("b", data=np.arange(9), compression="bz2")
        try:
            con.create_dataset("c", data=np.arange(9), compression="wrong")
        except dn.errors.ConfigurationError as error:
            print(error)
    """
    )
    assert lines[:2] == ["True", "LOADED bz2"]
    assert "of wrong-package 1.2" in lines[2]
    lines, _ = site.prints(
        """
    with dn.Connection("store", backend="file") as con:
        print(con["a"][...].tolist() == con["b"][...].tolist())
    """
    )
    assert lines == ["LOADED bz2", "True"]


def test_what_was_named_travels_is_picklable():
    from dosna.engines.cpu import CpuRunner
    from dosna.sources import Source

    with pytest.warns(DeprecationWarning, match="picklable"):

        class Old(CpuRunner):
            def spread(self, work, tasks, *, workers=None, travels=True, report=None):
                return [travels, *super().spread(work, tasks, workers=workers, report=report)]

    assert Old().spread(list, [1], picklable=False) == [False, [1]]
    assert Old().spread(list, [1], workers=2) == [True, [1]]
    with pytest.warns(DeprecationWarning, match="picklable"):

        class Open(Source):
            @property
            def travels(self):
                return False

    assert Open.picklable.fget(None) is False


def test_names_of_a_package_are_imported_when_they_are_used():
    find = registry.lazily("dosna.core", {"parse_size": "sizes", "lacking": "does_not_exist"})
    assert find("parse_size").__module__ == "dosna.core.sizes"
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        find("other")
    with pytest.raises(ModuleNotFoundError):
        find("lacking")


def test_a_missing_package_is_named_with_its_extra():
    find = registry.lazily("dosna.core", {"lacking": "does_not_exist"}, "this needs", "root")
    missing = r"this needs dosna\.core\.does_not_exist: pip install 'dosna\[root\]'"
    with pytest.raises(errors.MissingDependencyError, match=missing):
        find("lacking")
