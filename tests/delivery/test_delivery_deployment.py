"""What the service is deployed by: settings, manifests, a container's recipe; the example."""

from __future__ import annotations

import base64
import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support import HANG, require, validate_manifest, wait_until

from dosna.cli.parser import make_parser
from dosna.delivery.settings import Settings
from dosna.testing.timing import patience

yaml = require("yaml")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/delivery"


def test_the_manifest_is_valid_and_starts_the_service() -> None:
    manifests = list(yaml.safe_load_all((FOLDER / "k8s_delivery.yml").read_text()))
    for manifest in manifests:
        validate_manifest(manifest)
    (deployment,) = (one for one in manifests if one["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = make_parser().parse_args(["delivery", *container["args"]])
    settings = tomllib.loads((FOLDER / "delivery.toml").read_text())
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(Path(arguments.config).parent), settings["state"]} < mounts
    assert settings["roots"][0] in mounts
    assert container["ports"][0]["containerPort"] == settings["port"]
    assert settings["auth"] == "tokens"
    container["livenesProbe"] = {}
    with pytest.raises(require("kubernetes_validate").ValidationError):
        validate_manifest(deployment)


def test_the_settings_of_the_example_are_all_that_there_are() -> None:
    text = (FOLDER / "delivery.toml").read_text()
    given = tomllib.loads(text)
    commented = {
        line[2:].partition(" = ")[0] for line in text.splitlines() if line.startswith("# ")
    }
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    assert set(fields) == set(given) | (commented & set(fields))
    # Keys in comments have their defaults.
    for line in text.splitlines():
        name, _, value = line.removeprefix("# ").partition(" = ")
        default = getattr(fields.get(name), "default", None)
        if line.startswith("# ") and default is not None:
            found = tomllib.loads(f"x = {value}")["x"]
            assert (tuple(found) if isinstance(found, list) else found) == default, name


def test_the_command_changes_users(tmp_path: Path) -> None:
    require("fastapi")
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "dosna", "delivery", "--root", str(tmp_path / "data")]
    command += ["--state", str(tmp_path / "state")]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=HANG)

    token = run("--add-user", "ada").stdout.strip()
    assert token.count(".") == 2
    assert run("--add-user", "a b").returncode == 2
    assert run("--remove-user", "ada").returncode == 0
    assert run("--remove-user", "ada").returncode == 1
    assert (tmp_path / "state" / "key").stat().st_mode & 0o77 == 0
    refused = run("--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "users" in refused.stderr


_ENDLESS = """
import time
def run_query(path):
    time.sleep(10_000)
"""


@pytest.mark.slow
def test_the_command_ends_while_files_are_transformed(
    tmp_path: Path, events: Path, paths: list[str]
) -> None:
    for package in ("fastapi", "uproot"):
        require(package)
    httpx = require("httpx")
    command = [sys.executable, "-m", "dosna", "delivery", "--root", str(events), "--port", "0"]
    command += ["--state", str(tmp_path), "--unconfined", "--preflight-seconds", "0.1"]
    body = {
        "selection": base64.b64encode(_ENDLESS.encode()).decode(),
        "codegen": "python",
        "file-list": paths,
    }
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stderr is not None
        try:
            url = service.stdout.readline().split()[0].decode() + "/servicex/transformation"
            answer = httpx.post(url, json=body, timeout=HANG)
            wait_until(lambda: list(tmp_path.glob("scratch/file-*")))
            service.terminate()
            assert service.wait(patience(5)) == 0
            assert b"cannot be prepared" not in service.stderr.read()
        finally:
            service.kill()
    from dosna.delivery.state import State

    state = State(f"sqlite:///{tmp_path}/delivery.sqlite")
    # The next service takes it up.
    assert state.requests.get(answer.json()["request_id"]).status == "Lookup"
    state.close()


@pytest.mark.slow
def test_the_example_draws_a_histogram(serve: Any, paths: list[str], tmp_path: Path) -> None:
    require("servicex")
    require("matplotlib")
    server = serve()
    config = tmp_path / "servicex.yaml"
    config.write_text(
        f"api_endpoints:\n- name: local\n  endpoint: {server.root}\n"
        f"default_endpoint: local\ncache_path: {tmp_path / 'cache'}\n"
    )
    words = ["glob:*.root", "Events", "met", "--cut", "met > 0.5", "--config", str(config)]
    ran = subprocess.run(
        [sys.executable, str(FOLDER / "histogram.py"), *words],
        capture_output=True,
        text=True,
        timeout=HANG,
        cwd=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "4 files" in ran.stdout
    assert (tmp_path / "histogram.png").read_bytes()[:4] == b"\x89PNG"
