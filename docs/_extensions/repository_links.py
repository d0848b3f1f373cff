"""Links between files of the repository, as GitHub reads them, lead to the pages of the site.

Some files are pages under another name: those above docs/, and search.md, since the site has its own search.html.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from sphinx.application import Sphinx

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "docs/search.md": "finding.md",
}
"""Files of the repository, and the pages of docs/ that include them."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", lead_to_pages)
    app.connect("include-read", lead_to_pages_from_included)
    return {"parallel_read_safe": True}


def lead_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = with_links_to_pages(source[0], dirname(join("docs", name)), dirname(name))


def lead_to_pages_from_included(app: Sphinx, path: Path, name: str, source: list[str]) -> None:
    root = Path(app.srcdir).parent
    folder = Path(app.srcdir, path).resolve().parent.relative_to(root.resolve()).as_posix()
    source[0] = with_links_to_pages(source[0], folder, dirname(name))


def with_links_to_pages(text: str, folder: str, page_folder: str) -> str:
    """A text whose links start from a folder of the repository, for a page in a folder of docs/."""

    def lead(link: re.Match[str]) -> str:
        file = normpath(join(folder, link[1]))
        page = PAGES.get(file, relpath(file, "docs"))
        return f"]({relpath(page, page_folder or '.')}"

    return re.sub(r"\]\((?![a-z]+:)([^)#\s]+)", lead, text)
