"""``dosna serve``: what it prints and opens, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from support import HANG, require, taking_ctrl_c

import dosna as dn
from dosna.cli import main

require("starlette")
require("uvicorn")
require("h5grove")
httpx = require("httpx")

TOKEN = "a-token-of-the-tests"


@pytest.fixture
def folder(tmp_path):
    with dn.Connection(str(tmp_path), backend="file") as con:
        con.create_dataset("entry/tomo", data=np.arange(6))
        con.create_dataset("other", data=[1])
    return tmp_path


def serving(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "dosna", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "given"), [(2, ["--token", TOKEN]), (15, [])])
def test_it_serves_until_ctrl_c(folder, number, given, monkeypatch):
    if not given:  # the environment is nobody else's to see
        monkeypatch.setenv("DOSNA_TOKEN", TOKEN)
    with taking_ctrl_c(), serving(f"file:{folder}//entry", *given) as process:
        url = process.stdout.readline().strip()
        assert url.endswith(f"/?token={TOKEN}")
        root = url.partition("/?")[0]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(headers=headers, timeout=HANG) as client:
            assert client.get(f"{root}/zarr/entry/tomo/zarr.json").json()["shape"] == [6]
            assert client.get(f"{root}/zarr/other/zarr.json").status_code == 404
            assert httpx.get(f"{root}/zarr/entry/tomo/zarr.json", timeout=HANG).status_code == 401
            process.send_signal(number)
            out, err = process.communicate(timeout=HANG)
    assert process.returncode == 0
    assert out == ""
    assert "this machine" in err
    assert TOKEN not in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_its_addresses_are_json_too(folder):
    with serving(f"file:{folder}//", "--json", "--quiet") as process:
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        found = json.loads(text)
        process.terminate()
        assert found["url"].startswith(found["root"] + "/?token=")
        assert found["zarr"] == found["root"] + "/zarr"


@pytest.mark.slow
def test_what_is_open_to_the_network_is_said(folder):
    with serving(f"file:{folder}//", "--host", "0.0.0.0", "--token", TOKEN, "-q") as process:
        process.stdout.readline()
        process.terminate()
        assert "network" in process.stderr.read()


def test_an_open_interface_needs_a_token(folder, capsys):
    assert main(["serve", f"file:{folder}//", "--host", "0.0.0.0"]) == 2
    assert "token" in capsys.readouterr().err
    assert main(["serve", f"file:{folder}//", "--token", "short"]) == 2
    assert "characters" in capsys.readouterr().err
    assert main(["serve", f"file:{folder}//", "--allow-origin", "here"]) == 2
    assert "origin" in capsys.readouterr().err
