"""The changelog: every fragment is in what a release writes, under a heading of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import HANG, require

ROOT = Path(__file__).resolve().parents[2]


def build(folder, *options):
    """Run towncrier for a folder, and return what it prints."""
    require("towncrier")
    command = [sys.executable, "-m", "towncrier", "build", *options]
    command += ["--dir", folder, "--config", folder / "pyproject.toml"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert run.returncode == 0, run.stderr
    return run.stdout


def draft(folder):
    """Return the changelog of the fragments in a folder, as towncrier renders it."""
    return " ".join(build(folder, "--draft", "--version", "next").split())


def test_every_fragment_is_in_the_changelog():
    written = draft(ROOT)
    for fragment in sorted((ROOT / "changelog.d").glob("*.md")):
        for text in ("\n" + fragment.read_text(encoding="utf-8").strip()).split("\n- "):
            words = text.removeprefix("DATA:").split()
            assert " ".join(words) in written, fragment.name


@pytest.fixture
def tree(tmp_path):
    """A folder with the changelog, its configuration and its template, but no fragments."""
    (tmp_path / "changelog.d").mkdir()
    for name in ("pyproject.toml", "CHANGELOG.md", "changelog.d/template.md.jinja"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_fragment_without_a_bullet_is_one_bullet(tree):
    (tree / "changelog.d/+one.fixed.md").write_text("A fault.\n", encoding="utf-8")
    (tree / "changelog.d/+two.fixed.md").write_text("- One.\n- Two.\n", encoding="utf-8")
    assert draft(tree).endswith("### Fixed - One. - Two. - A fault.")


def test_texts_about_stored_data_come_first(tree):
    (tree / "changelog.d/+one.fixed.md").write_text("- A.\n- DATA: B.\n", encoding="utf-8")
    (tree / "changelog.d/+two.data.md").write_text("On hdf5:\n\n- C.\n", encoding="utf-8")
    first = "### Stored data that may be wrong On hdf5: - C. - B. ### Fixed - A."
    assert draft(tree).endswith(first)


def test_a_release_has_one_heading(tree):
    before = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    (tree / "changelog.d/+one.fixed.md").write_text("A fault.\n", encoding="utf-8")
    build(tree, "--yes", "--date", "2000-01-02")
    written = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    new, *old = re.findall(r"^## (\S+)", written, re.MULTILINE)
    assert new not in old
    assert old == re.findall(r"^## (\S+)", before, re.MULTILINE)
    assert f"## {new} (2000-01-02)\n\n### Fixed\n\n- A fault.\n" in written
    assert not list((tree / "changelog.d").glob("*.md"))
