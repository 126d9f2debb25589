"""What mkdocs does not do by itself: pages from outside of docs/, links to code, no other hosts.

Documents link to files by their paths in the repository, as GitHub shows them. Here the Markdown
files of `PAGES` become pages, and other files of the repository that are linked to become files of
the site, so that it is complete without a network.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//"
)


def is_relative(link: str) -> bool:
    """Return True for a link to a file of the repository."""
    return "://" not in link and not link.startswith(("/", "mailto:"))


def find_target(link: str, page: str) -> tuple[str, Path]:
    """Return the path in the site, and the file or folder in the repository, of a page's link.

    Pages are named by their paths in the site: those of docs/ have lost the folder.
    """
    outside = (ROOT / page).is_file() or page.startswith(("examples/", "dosna/"))
    source = page if outside else f"docs/{page}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    path = ROOT / target
    if target == "README.md":
        return "index.md", path
    if path.is_dir():
        target = posixpath.join(target, "README.md")
    elif path.suffix not in (".md", ".png", ".svg"):
        target += ".txt"  # which browsers show
    return target.removeprefix("docs/"), path


def list_folder(folder: Path) -> str:
    """Return a page with links to the files of a folder that has no page of its own."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    title = folder.relative_to(ROOT).as_posix()
    return f"# {title}\n\n" + "".join(f"- [{name}]({name})\n" for name in names)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/, and the files that pages link to."""
    for name in PAGES:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        for _, link, _ in LINK.findall(FENCE.sub("", page.content_string)):
            if not is_relative(link):
                continue
            name, path = find_target(link, page.src_uri)
            if files.get_file_from_path(name) is not None or (ROOT / "docs") in path.parents:
                continue
            content: str | bytes
            if path.is_dir():
                content = list_folder(path)
            elif path.is_file():
                content = path.read_bytes()
            else:
                continue  # mkdocs says what is wrong
            file = File.generated(
                config, name, content=content, inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(file)
            if path.is_dir():
                pages.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Point the links of a page to where files are in the site."""

    def rewritten(match: re.Match[str]) -> str:
        if not is_relative(match[2]):
            return match[0]
        name, _ = find_target(match[2], page.file.src_uri)
        if files.get_file_from_path(name) is None:
            return match[0]
        return match[1] + posixpath.relpath(name, posixpath.dirname(page.file.src_uri)) + match[3]

    parts = FENCE.split(markdown)
    return "".join(p if n % 2 else LINK.sub(rewritten, p) for n, p in enumerate(parts))


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Refuse a page that loads anything from another host."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from another host: {found[0]}")
    return output
