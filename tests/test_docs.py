"""The documentation runs: the guide, the notebook; the site builds without a warning; numbers are the code's."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

from stamp_deploy.cli import cli

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "docs" / "notebooks" / "score-a-slide.ipynb"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with slide.svs and bundle/, as the documentation has it."""
    write_slide(tmp_path / "slide.svs", texture(1000, 1000))
    make_bundle(tmp_path / "bundle", tile_px=64)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_guide_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("anndata")
    text = (ROOT / "README.md").read_text() + (ROOT / "docs" / "guides" / "python.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        if number == 1:  # the README's own block wrote it
            shutil.rmtree(place / "out")
        exec(compile(block, f"block {number} of the README and the guide", "exec"), names)
    assert (place / "out" / "report.html").is_file()
    assert "0.5 jpeg-tiff" in capsys.readouterr().out


def test_the_notebook_runs(place: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(place)}})
    # Jupyter keeps its files in the home folder unless it is told where else.
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        os.environ[name] = str(place / "jupyter")
    # The installed kernel may be of another environment: this one is asked for by its own interpreter.
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    kinds = {kind for out in shown for kind in out.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert (place / "out" / "report.html").is_file()
    assert (place / "out-qupath" / "tiles.geojson").is_file()


def test_the_notebook_is_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api.html").read_text()
    for name in ("infer_slide", "read_result", "SlideResult", "MppError"):
        assert name in api
    assert not re.search(r"(src|href)=\"https?://(fonts|cdn|unpkg)", api)


@pytest.mark.parametrize("index", ["docs/README.md", "mkdocs.yml"])
def test_every_page_is_in_the_index_and_in_the_sites_menu(index: str) -> None:
    listed = (ROOT / index).read_text(encoding="utf-8")
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 20
    missing = [page for page in pages if page != "README.md" and page not in listed]
    assert not missing


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs_and_options(shell: str) -> None:
    command = shutil.which("stamp-deploy", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command is not installed beside this interpreter")

    def ask(**env: str) -> str:
        done = subprocess.run(
            [command], env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    assert "_STAMP_DEPLOY_COMPLETE" in ask(_STAMP_DEPLOY_COMPLETE=f"{shell}_source")
    if shell == "bash":
        words = {"COMP_WORDS": "stamp-deploy inf", "COMP_CWORD": "1"}
        assert "infer" in ask(_STAMP_DEPLOY_COMPLETE="bash_complete", **words)
        words = {"COMP_WORDS": "stamp-deploy infer --wri", "COMP_CWORD": "2"}
        assert "--write" in ask(_STAMP_DEPLOY_COMPLETE="bash_complete", **words)


NUMBER = re.compile(r"([\d,]*\.?\d+(?:e-?\d+)?) ?(%|MiB|GiB|GB|Gpx|Mpx|billion|million|ms|s|h|th)?<!-- = ([^>]+?) -->")
UNITS = {"%": 0.01, "MiB": 2.0**20, "GiB": 2.0**30, "GB": 1e9, "Gpx": 1e9, "Mpx": 1e6, "billion": 1e9, "million": 1e6,
         "ms": 1e-3, "h": 3600.0}  # fmt: skip
CLAIMS = [
    pytest.param(number, unit, source, id=f"{page.stem}: {source}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, unit, source in NUMBER.findall(page.read_text())
]


def in_the_code(source: str) -> float:
    """The value that a marker names: `module:EXPRESSION` below stamp_deploy, or `VERB --option` for its default."""
    if ":" in source:
        module, expression = source.split(":", 1)
        return float(eval(expression, dict(vars(importlib.import_module(f"stamp_deploy.{module}")))))
    verb, name = source.split()
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None, f"no verb {verb}"
    return next(float(param.default) for param in command.params if name in param.opts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "unit", "source"), CLAIMS)
def test_a_number_in_the_docs_is_the_codes(number: str, unit: str, source: str) -> None:
    """A marker `<!-- = SOURCE -->` behind a number says where it comes from (CONTRIBUTING.md)."""
    if "training." in source:
        pytest.importorskip("torch")
    said = float(number.replace(",", "")) * UNITS.get(unit, 1.0)
    assert said == pytest.approx(in_the_code(source), rel=1e-9)


def test_every_marker_is_understood() -> None:
    markers = sum(page.read_text().count("<!-- =") for page in (ROOT / "docs").rglob("*.md"))
    assert len(CLAIMS) == markers >= 70
