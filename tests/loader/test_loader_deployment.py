"""What the loader is deployed by: manifests, a container's recipe, a script for one machine."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from loading import Inventory, check_loaded, connect, write_folder
from support import HANG, require, validate_manifest

from dosna.cli.parser import make_parser
from dosna.loader.config import KEYS, SECRET, Config

yaml = require("yaml")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples/loader"
MANIFESTS = [f"k8s_{role}_deployment.yml" for role in ("watch", "load", "diff")]
SECRETS = "aws_access_key_id: a\naws_secret_access_key: b\nhs_password: 1234\n"


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid_and_start_roles_that_there_are(name):
    manifest = yaml.safe_load((FOLDER / name).read_text())
    validate_manifest(manifest)
    role = name.split("_")[1]
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (manifest["spec"]["replicas"] > 1) == (role != "watch")
    assert (
        manifest["spec"]["selector"]["matchLabels"]
        == (manifest["spec"]["template"]["metadata"]["labels"])
    )
    arguments = make_parser().parse_args(["loader", *container["args"]])
    assert (arguments.role, arguments.config) == (role, "/config/config.yml")
    assert container["resources"]["limits"]["memory"]
    alive = arguments.key_heartbeat
    for probe in ("startupProbe", "livenessProbe"):
        assert alive in " ".join(container[probe]["exec"]["command"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/config"]]["configMap"] == {"name": "dosna-loader"}
    assert "emptyDir" in volumes[mounts[os.path.dirname(alive)]]


def test_a_wrong_manifest_is_noticed():
    manifest = yaml.safe_load((FOLDER / MANIFESTS[0]).read_text())
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(require("kubernetes_validate").ValidationError):
        validate_manifest(manifest)


def test_the_probe_of_a_living_worker_passes_and_of_a_dead_one_fails(tmp_path):
    manifest = yaml.safe_load((FOLDER / "k8s_load_deployment.yml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    command = container["livenessProbe"]["exec"]["command"]
    alive = tmp_path / "alive"

    def passes():
        here = [word.replace("/run/loader/alive", str(alive)) for word in command]
        return subprocess.run(here, capture_output=True).returncode == 0

    assert not passes()
    alive.touch()
    assert passes()
    os.utime(alive, (0, 0))
    assert not passes()


def test_secret_and_config_map_are_made_of_the_configuration(tmp_path):
    (tmp_path / "secrets.yml").write_text(SECRETS)
    command = [sys.executable, FOLDER / "make_k8s_config.py", FOLDER / "config.yml"]
    run = subprocess.run(
        [*command, tmp_path / "secrets.yml"], capture_output=True, text=True, check=True
    )
    made = {manifest["kind"]: manifest for manifest in yaml.safe_load_all(run.stdout)}
    for manifest in made.values():
        validate_manifest(manifest)
        assert manifest["metadata"]["name"] == "dosna-loader"
    mounted = tmp_path / "config.yml"
    mounted.write_text(made["ConfigMap"]["data"]["config.yml"])
    found = Config.read(mounted, environ=made["Secret"]["stringData"])
    assert (found.aws_access_key_id, found.hs_password) == ("a", "1234")
    assert found.src_bucket == "raw"
    (tmp_path / "wrong.yml").write_text("src_buket: a")
    command[2] = tmp_path / "wrong.yml"
    run = subprocess.run([*command, tmp_path / "secrets.yml"], capture_output=True, text=True)
    assert run.returncode != 0
    assert "src_buket" in run.stderr


def test_the_sample_of_a_configuration_has_every_key_and_its_default():
    text = (FOLDER / "config.yml").read_text()
    shown = dict(re.findall(r"^(?:# )?([a-z_0-9]+): ([^#\n]*?)[ \t]*(?:#.*)?$", text, re.M))
    assert set(shown) == set(KEYS) - SECRET
    own = {"src_bucket", "target", "tgt_folder"}
    defaults = Config()
    for key in set(shown) - own:
        assert yaml.safe_load(shown[key]) == getattr(defaults, key), key
    Config.read(FOLDER / "config.yml", environ={})
    sample = (FOLDER / "secrets.sample.yml").read_text()
    assert set(re.findall(r"^(?:# )?([a-z_]+): ", sample, re.M)) <= {
        *SECRET,
        *("inventory", "hs_username"),
    }


def test_the_recipe_of_the_container_names_what_there_is():
    lines = re.sub(r"\\\n\s*", "", (FOLDER / "Dockerfile").read_text()).splitlines()
    steps = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM"
    copied = [path for word, rest in steps if word == "COPY" for path in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    (run,) = [rest for word, rest in steps if word == "RUN"]
    assert subprocess.run(["sh", "-n", "-c", run]).returncode == 0
    extras = re.search(r"\[([\w,]+)\]", run)[1].split(",")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(extras) <= set(setup["options.extras_require"])
    entry = yaml.safe_load(dict(steps)["ENTRYPOINT"])
    assert entry == ["dosna", "loader"]


@pytest.fixture
def with_dosna(tmp_path):
    """Give an environment whose PATH has the command ``dosna`` of this tree."""
    command = tmp_path / "bin/dosna"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dosna "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}


def test_the_script_runs_the_roles_on_one_machine(tmp_path, with_dosna):
    script = FOLDER / "run_local.sh"
    assert os.access(script, os.X_OK)
    files = {f"{n}.h5": (n, False) for n in range(6)}
    write_folder(tmp_path / "raw", files)
    (tmp_path / "config.yml").write_text(
        "src_bucket: ./raw\ntarget: file:out\nlog_level: error\nwatchdog_sleep_time: 0.2\n"
    )

    def run(*arguments):
        return subprocess.Popen(
            ["sh", script, *arguments], cwd=tmp_path, env=with_dosna, stdout=-1, text=True
        )

    with run("--load", "1", "--diff", "1", "--once", "--jobs", "2") as process:
        out, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0
    assert "6 files, " in out
    assert ", none left" in out
    with connect(f"file:{tmp_path}/out") as con:
        for key, (number, large) in files.items():
            check_loaded(con, key, number, large)
    # For ever, until it is told to end.
    write_folder(tmp_path / "raw", {"more.h5": (9, False)})
    with run("--load", "1") as process, Inventory(f"sqlite:///{tmp_path}/loader.sqlite") as made:
        while sum(row.diff_status == "done" for row in made.rows()) < 7:
            assert process.poll() is None
        process.terminate()
        process.communicate(timeout=HANG)
    assert process.returncode == 0
    assert subprocess.run(["sh", script, "--load"], capture_output=True).returncode == 2
