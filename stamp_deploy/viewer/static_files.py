"""The page's own files, read once: an address is looked up among them and never becomes a path."""

from __future__ import annotations

from importlib import resources

from .. import html_page
from .answers import Answer

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
SHARED = ("page.css", "maps.js")
"""Files that the report has, too."""
VENDORED = "openseadragon.min.js"
PAGE = "index.html"


class StaticFiles:
    """The files that the page is made of, by name."""

    def __init__(self) -> None:
        folder = resources.files(__package__).joinpath("static")
        self._files = {name: html_page.shared_file(name).encode() for name in SHARED}
        for item in folder.iterdir():
            if item.is_file() and item.name.rpartition(".")[2] in KINDS:
                self._files[item.name] = item.read_bytes()
        self._files[VENDORED] = folder.joinpath("openseadragon", VENDORED).read_bytes()

    def page(self) -> Answer:
        """The page itself."""
        found = self.get(PAGE)
        assert found is not None
        return found

    def get(self, name: str) -> Answer | None:
        """A file, or None where there is none of this name."""
        content = self._files.get(name)
        return None if content is None else Answer(200, content, KINDS[name.rpartition(".")[2]])
