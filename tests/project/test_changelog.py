"""The changelog: every fragment is in what a release writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support import HANG, require

ROOT = Path(__file__).resolve().parents[2]


def draft(folder):
    """Return the changelog of the fragments in a folder, as towncrier renders it."""
    require("towncrier")
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"]
    command += ["--dir", folder, "--config", folder / "pyproject.toml"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    return " ".join(run.stdout.split())


def test_every_fragment_is_in_the_changelog():
    written = draft(ROOT)
    for fragment in sorted((ROOT / "changelog.d").glob("*.md")):
        for text in ("\n" + fragment.read_text(encoding="utf-8").strip()).split("\n- "):
            words = text.removeprefix("DATA:").split()
            assert " ".join(words) in written, fragment.name


def test_a_fragment_without_a_bullet_is_one_bullet(tmp_path):
    (tmp_path / "changelog.d").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "changelog.d/template.md.jinja", tmp_path / "changelog.d")
    (tmp_path / "changelog.d/+one.fixed.md").write_text("A fault.\n", encoding="utf-8")
    (tmp_path / "changelog.d/+two.fixed.md").write_text("- One.\n- Two.\n", encoding="utf-8")
    assert draft(tmp_path).endswith("### Fixed - One. - Two. - A fault.")
