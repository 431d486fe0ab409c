"""OpenSeadragon is what its maker published, and the page asks for nothing that is not here."""

from __future__ import annotations

import ast
import re
from hashlib import sha256
from importlib import resources
from pathlib import Path

FOLDER = Path(str(resources.files("stamp_deploy.viewer").joinpath("static", "openseadragon")))
ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_vendored_files_are_unchanged() -> None:
    stated = dict(re.findall(r"\| (\S+) \| ([0-9a-f]{64}) \|", (FOLDER / "README.md").read_text()))
    assert set(stated) == {"openseadragon.min.js", "LICENSE.txt"}
    assert {path.name for path in FOLDER.iterdir()} == {*stated, "README.md"}
    for name, wanted in stated.items():
        assert sha256((FOLDER / name).read_bytes()).hexdigest() == wanted, name


def test_its_licence_is_told() -> None:
    assert "OpenSeadragon contributors" in (FOLDER / "LICENSE.txt").read_text()
    version = re.search(r"openseadragon (\S+)", (FOLDER / "openseadragon.min.js").read_text()[:200])
    assert version is not None
    assert f"OpenSeadragon {version[1]}" in (ROOT / "NOTICE").read_text()
    assert "stamp_deploy/viewer/static/openseadragon/LICENSE.txt" in (ROOT / "pyproject.toml").read_text()


def test_our_own_files_name_no_other_host_and_evaluate_no_text() -> None:
    for path in FOLDER.parent.glob("*.*"):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
        for never in ("eval(", "new Function", "innerHTML", "document.write", "localStorage"):
            assert never not in text, (path.name, never)


def test_the_wheel_carries_the_page() -> None:
    strings = [
        node.value for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Constant)
    ]
    patterns = [value for value in strings if isinstance(value, str) and "*" in value]
    package = FOLDER.parent.parent.parent
    for path in [*FOLDER.parent.rglob("*.*"), *(package / "html_page").glob("*.[jc]s*")]:
        inner = path.relative_to(package)
        assert any(inner.match(pattern) and len(inner.parts) == pattern.count("/") + 1 for pattern in patterns), inner
