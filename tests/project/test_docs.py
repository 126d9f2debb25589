"""The documents are true: their code runs and gives what it says, their links lead somewhere.

A line of a Python block that ends in ``# [remark] -> text`` shows what it prints, or the
``repr`` of its value; alone on a line it is about the line above. The blocks of one file
share their names, in order.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from urllib.parse import unquote

import pytest
from support import HANG, require

from dosna import errors
from dosna.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHOWN = re.compile(r"^(?:.*\S\s)?\s*# (?:[^#]*? )?-> (?P<text>.*)$")


def blocks(path, *languages):
    """Give ``(line of the first line, text)`` of each fenced block in one of the languages."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text_of(path), re.M | re.S)
    return [
        (text_of(path)[: match.start(2)].count("\n"), match[2])
        for match in found
        if match[1] in languages
    ]


def text_of(path):
    return path.read_text(encoding="utf-8")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


class Shown(ast.NodeTransformer):
    """Turns each expression on a line with ``# ->`` into a comparison with what is shown."""

    def __init__(self, source):
        self.expected = {}
        for number, line in enumerate(source.splitlines(), 1):
            if match := SHOWN.match(line):
                alone = line.lstrip().startswith("#")
                self.expected[number - alone] = match["text"]

    def visit_Expr(self, node):
        text = self.expected.pop(node.end_lineno, None)
        if text is not None:
            called = ast.Call(
                ast.Name("compare_", ast.Load()), [node.value, ast.Constant(text)], []
            )
            node = ast.copy_location(ast.Expr(ast.copy_location(called, node)), node)
        return ast.fix_missing_locations(node)


def run_block(source, line, name, namespace):
    shown = Shown(source)
    tree = shown.visit(ast.parse(source, name))
    assert not shown.expected, f"{name}: nothing to compare with {shown.expected}"
    exec(compile(ast.increment_lineno(tree, line), name, "exec"), namespace)


def run_console(source, name, run):
    """Run each line that begins with ``$``; where it shows ``...`` anything may be printed."""
    for entry in re.split(r"^\$ ", source, flags=re.M)[1:]:
        command, _, shown = entry.partition("\n")
        pattern = re.escape(shown).replace(r"\.\.\.", "(?s:.*)")
        printed = run(command)
        assert re.fullmatch(pattern, printed), f"{name}: {command} printed\n{printed}"


def run_blocks(found, name, run=None):
    printed = []

    def show(*values, sep=" "):
        printed.append(sep.join(map(str, values)))

    def compare(value, text):
        assert (printed[-1] if value is None else repr(value)) == text

    namespace = {"__name__": "__main__", "print": show, "compare_": compare}
    for line, source in found:
        if source.startswith("$ "):
            run_console(source, name, run)
        else:
            run_block(source, line, name, namespace)


def test_a_wrong_output_is_noticed():
    right = "x = 1\nx + 1  # -> 2\nfor i in range(1):\n    print(i, x)  # -> 0 1\n"
    run_blocks([(0, right)], "doc")
    with pytest.raises(AssertionError):
        run_blocks([(0, "print(1)  # -> 2\n")], "doc")
    with pytest.raises(AssertionError):
        run_blocks([(0, "x = 1  # -> 1\n")], "doc")
    run_blocks([(0, "$ dosna ls\na ...\nc\n")], "doc", lambda command: "a b\nc\n")
    with pytest.raises(AssertionError):
        run_blocks([(0, "$ dosna ls\na ...\n")], "doc", lambda command: "b\n")


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if blocks(path, "python", "console")], ids=name_of
)
def test_blocks_of_the_documents_run(path, tmp_path, monkeypatch, capsys, request):
    for package in (
        *("h5py", "joblib", "cloudpickle", "scipy", "mpi4py", "dask", "xarray"),
        *("matplotlib", "uproot", "awkward"),
    ):
        if package in text_of(path):
            require(package)
    if "hdf5://home/test" in text_of(path):
        request.getfixturevalue("hsds")
    monkeypatch.chdir(tmp_path)

    def printed(command):
        program, *arguments = shlex.split(command)
        assert (program, main(arguments)) == ("dosna", 0), command
        return capsys.readouterr().out

    run_blocks(blocks(path, "python", "console"), name_of(path), printed)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_shell_of_the_documents_is_right(path):
    shell = shutil.which("dash") or "sh"
    for line, source in blocks(path, "sh"):
        checked = subprocess.run([shell, "-n"], input=source, capture_output=True, text=True)
        assert checked.returncode == 0, f"{name_of(path)}:{line}: {checked.stderr}"
        for called in re.findall(r"\b[\w/.-]+\.(?:sh|py)\b", source):
            assert called == "x.py" or (ROOT / called).is_file(), f"{name_of(path)}: {called}"


@pytest.mark.parametrize("script", sorted(ROOT.glob("examples/*.sh")), ids=name_of)
def test_scripts_of_the_examples_are_posix_and_executable(script):
    checked = subprocess.run([shutil.which("dash") or "sh", "-n", script], capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert os.access(script, os.X_OK)


def anchors(path):
    """Give the anchors that GitHub makes of a document's headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text_of(path), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_of_the_documents_lead_somewhere(path):
    prose = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        file, _, anchor = unquote(link).partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_document_is_linked_from_another():
    linked = set()
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s#]+)", text_of(path)):
            target = (path.parent / link).resolve()
            linked |= set(target.glob("*.md")) if target.is_dir() else {target}
    assert [name_of(p) for p in DOCUMENTS if p not in linked and p.name != "README.md"] == []


def run_example(name, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=HANG,
    )


@pytest.mark.parametrize(("backend", "engine"), [("hdf5", "joblib"), ("ram", "cpu")])
def test_quickstart_filters_the_volume_and_draws_it(tmp_path, backend, engine):
    for package in ("nibabel", "scipy", "matplotlib", "h5py", "joblib"):
        require(package)
    arguments = ["--out", "shown", "--backend", backend, "--engine", engine]
    for _ in range(2 if backend == "hdf5" else 1):  # the second finds what the first left
        run = run_example("quickstart.py", *arguments, cwd=tmp_path)
        assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"whole volume: (0|\d\.?\d*e-0[3-9])\n", run.stdout)
    pictures = sorted((tmp_path / "shown").glob("*.png"))
    assert [picture.name for picture in pictures] == ["chunks.png", "slices.png"]
    for picture in pictures:
        assert str(picture) in run.stdout
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert picture.stat().st_size > 30_000
    assert (tmp_path / "shown/store/smooth/dataset.h5").exists() == (backend == "hdf5")


def test_all_backends_agree(tmp_path):
    for package in ("scipy", "h5py", "joblib", "distributed"):
        require(package)
    run = run_example("all_backends.py", "--side", "30", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^ram +joblib loky +not possible", run.stdout, re.M)
    assert run.stdout.endswith("10 results, all equal\n")


@pytest.fixture
def memory_path():
    """Give a folder in memory where there is one: a database waits for the disk at each put."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


def test_a_new_backend_takes_less_than_100_lines_and_passes_the_kit(memory_path):
    require("joblib")
    example = ROOT / "examples" / "new_backend.py"
    assert len(example.read_text().splitlines()) < 100
    run = run_example("new_backend.py", cwd=memory_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert "4 ok" in run.stdout
    assert_passes_the_kit(example, memory_path)


def test_the_plug_ins_of_the_guide_to_extending_pass_the_kit(tmp_path):
    written = tmp_path / "test_extending.py"
    found = blocks(ROOT / "docs" / "extending.md", "python")
    written.write_text("\n".join(source for _, source in found))
    assert_passes_the_kit(written, tmp_path)


def assert_passes_the_kit(proof, folder):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--timeout", str(HANG)]
    command += ["-c", ROOT / "pyproject.toml", "--basetemp", folder / "proof", proof]
    plugins = {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "pytest_timeout,_hypothesis_pytestplugin",
    }
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, **plugins}, capture_output=True, text=True
    )
    assert re.search(r"\d\d passed", run.stdout), run.stdout + run.stderr
    assert run.returncode == 0, run.stdout


def test_the_tree_of_errors_is_the_one_of_the_code():
    tree = re.search(r"^DosnaError\n(?:[│├└ ].*\n)+", text_of(ROOT / "docs/reference.md"), re.M)
    assert textwrap.indent(tree[0], "    ") in errors.__doc__


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").glob("*.svg")), ids=name_of)
def test_the_pictures_of_the_documents_are_what_the_scripts_draw(picture, tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for script in ("drawing.py", f"draw_{picture.stem}.py"):
        shutil.copy(ROOT / "docs" / script, folder)
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "benchmarks/README.md", tmp_path / "benchmarks")  # what draw_speed.py draws
    subprocess.run([sys.executable, folder / f"draw_{picture.stem}.py"], check=True)
    assert (folder / picture.name).read_text() == picture.read_text()
