"""``import stamp_deploy as sd``: the documented examples run, results come back whole, nothing heavy is imported."""

from __future__ import annotations

import doctest
import io
import json
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.result_factory import make_head, make_result, stored
from support.slide_factory import texture, write_slide

import stamp_deploy as sd
from stamp_deploy import api
from stamp_deploy.api import functions, slide_result, slide_tiles
from stamp_deploy.errors import DataError, SlideError, UsageError
from stamp_deploy.result import Result
from stamp_deploy.result_files import read_result
from stamp_deploy.tiles import TileStatus
from stamp_deploy.trust import SlideTrust, TileFlag, Verdict
from stamp_deploy.validation import QUANTILES, PathwayValidation, Scale, Validation
from stamp_deploy.writers.names import find_name
from stamp_deploy.writers.report_words import VERDICTS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slide.svs, bundle/ and result/, as the examples of the documentation have it."""
    folder = tmp_path_factory.mktemp("examples")
    write_slide(folder / "slide.svs", texture(400, 400))
    make_bundle(folder / "bundle", tile_px=64)
    sd.infer_slide(
        folder / "slide.svs", folder / "bundle", folder / "result", formats=["json", "hdf5"], engine="onnxruntime",
        progress=False, all_tiles=True,
    )  # fmt: skip
    return folder


def same(a: Any, b: Any) -> bool:
    """Equal, arrays and the records that hold them included."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); import stamp_deploy as sd; dir(sd)\n"
        "found = {m for m in set(sys.modules) - before if sys.modules[m] is not None}\n"  # None: blocked
        "print(sorted(m for m in found if m.split('.')[0] not in sys.stdlib_module_names))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    imported = set(json.loads(out.replace("'", '"')))
    # Silencing the telemetry of libraries has to come before they are imported.
    silencing = {"stamp_deploy.system", "stamp_deploy.system.offline", "stamp_deploy.system.user_cache"}
    assert {"stamp_deploy"} <= imported <= {"stamp_deploy", *silencing}


def test_every_public_name_is_there() -> None:
    for name in sd.__all__:
        assert getattr(sd, name) is not None
    assert set(sd.__all__) <= set(dir(sd))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sd.nonsense  # noqa: B018


@pytest.mark.parametrize("module", [sd, api], ids=["stamp_deploy", "api"])
def test_the_examples_in_docstrings_run(module: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("anndata")
    monkeypatch.chdir(place)
    shutil.rmtree(place / "again", ignore_errors=True)
    names = {name: getattr(api, name) for name in vars(api)}
    finder = doctest.DocTestFinder(exclude_empty=True)
    owners = [module] if module is sd else [functions, slide_result, slide_tiles]
    tried = 0
    for example in (found for owner in owners for found in finder.find(owner, owner.__name__, globs=names)):
        said = io.StringIO()
        outcome = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.write)
        assert outcome.failed == 0, said.getvalue()
        tried += outcome.attempted
    assert tried >= (4 if module is sd else 15)


def test_a_result_comes_back_whole(tmp_path: Path) -> None:
    heads = (
        make_head("MSI", 150),
        make_head("a/b", 150, abstain=None, interval=None, thresholds=()),
        make_head("survival", 0, kind="survival", classes=("low", "high"), probabilities=(1.5,), call="high"),
    )
    names = ("HYPOXIA", "TNFα via NF-κB", "a/b")
    known = PathwayValidation("HYPOXIA", r=0.4, r_low=0.1, r_high=0.6, sections=3, patients=2, scale=Scale(0.5, 2.0))
    known = replace(known, predictions=dict.fromkeys(QUANTILES, 1.0))
    rng = np.random.default_rng(0)
    result = make_result(
        n_tiles=150,
        pathways=names,
        heads=heads,
        timing={"engine": 1.25},
        validation=Validation("z", (known, *map(PathwayValidation, names[1:])), "no controls"),
        pathways_global=rng.normal(size=(150, 3)).astype(np.float32),
        trust=SlideTrust(
            "doubtful",
            ("because",),
            1.75,
            rng.uniform(0, 4, 150).astype(np.float32),
            rng.integers(0, 64, 150).astype(np.uint16),
            150,
            "a rule",
            rng.uniform(0, 100, 150).astype(np.float32),
        ),
    )
    again = read_result(stored(result, tmp_path / "out"))
    for field in fields(Result):
        assert same(getattr(again, field.name), getattr(result, field.name)), field.name


def test_what_is_rendered_later_is_what_would_have_been_written_at_once(
    place: Path,
    tmp_path: Path,
    runner: Runner,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    formats = "json,hdf5,parquet,heatmaps,report,geojson,ome-tiff"
    words = ("infer", place / "slide.svs", "--bundle", place / "bundle", "--engine", "onnxruntime", "--write", formats)
    assert runner(*words, "-o", tmp_path / "out").code == 0
    before = (tmp_path / "out" / "DONE").read_bytes()
    done = runner("render", tmp_path / "out", "--write", formats)
    assert done.code == 0, done.err
    assert "written report.html" in done.out
    names = sorted(p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert len(names) > 8
    for name in names:
        first, later = (tmp_path / "out" / name).read_bytes(), (tmp_path / "out-render" / name).read_bytes()
        assert name.suffix in (".h5", ".tiff") or name.name == "DONE" or first == later, name
    assert (tmp_path / "out" / "DONE").read_bytes() == before
    assert runner("verify", tmp_path / "out").code == runner("verify", tmp_path / "out-render").code == 0
    again = runner("render", tmp_path / "out", "--write", "report")
    assert (again.code, "--overwrite" in again.err) == (2, True)
    assert runner("render", tmp_path / "out", "--write", "report", "--overwrite").code == 0


def test_what_cannot_be_rendered_says_so(place: Path, tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    pytest.importorskip("highdicom")
    bare = stored(make_result(n_tiles=20), tmp_path / "bare", ("json",))
    (tmp_path / "empty").mkdir()
    other = write_slide(tmp_path / "other.svs", texture(300, 300))
    for words, cause in (
        ((bare,), "holds no tiles.h5"),
        ((tmp_path / "empty",), "no finished result"),
        ((tmp_path / "none",), "no finished result"),
        ((place / "result", "--write", "dicom-sr"), "--slide"),
        ((place / "result", "--write", "dicom-sr", "--slide", place / "slide.svs"), "DICOM"),
        ((place / "result", "--slide", other), "SHA-256 differs"),
        ((place / "result", "--write", "nonsense"), "unknown output format"),
    ):
        done = runner("render", *words, "-o", tmp_path / "out")
        assert done.code == 2, (words, done.err)
        assert cause in done.err
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        ("cut", "cannot be read back"),
        ("slide", "different slides"),
        ("thumbnail", "lacks thumbnail"),
        ("rows", "disagree"),
        ("names", "different pathways"),
        ("json", "record is damaged"),
        ("version", "version 99"),
        ("field", "cannot be read back"),
        ("nan", "not finite"),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, damage: str, cause: str) -> None:
    folder = stored(make_result(n_tiles=30), tmp_path / "out")
    tiles, record = folder / "tiles.h5", folder / "result.json"
    facts = json.loads(record.read_text())
    if damage == "cut":
        tiles.write_bytes(tiles.read_bytes()[:-2000])
    elif damage in ("slide", "thumbnail", "rows", "names", "nan"):
        with h5py.File(tiles, "r+") as file:
            if damage == "slide":
                file.attrs["slide_sha256"] = "00" * 32
            elif damage == "nan":
                file["pathways"][3, 1] = np.nan
            elif damage == "names":
                file["pathway_names"][0] = "another"
            else:
                values = file["coords"][:-1]
                del file["thumbnail" if damage == "thumbnail" else "coords"]
                if damage == "rows":
                    file["coords"] = values
    elif damage == "json":
        record.write_text(record.read_text()[:-40])
    else:
        facts |= {"schema_version": 99} if damage == "version" else {}
        if damage == "field":
            del facts["grid"]
        record.write_text(json.dumps(facts))
    with pytest.raises(DataError, match=cause) as caught:
        read_result(folder)
    assert caught.value.remedy
    assert str(tmp_path) not in str(caught.value)


def test_without_a_folder_nothing_is_written(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = sd.infer_slide(str(place / "slide.svs"), str(place / "bundle"), engine="onnxruntime", progress=False)
    assert list(tmp_path.iterdir()) == []
    assert isinstance(result, sd.Result)
    assert len(result.pathways) == result.tiles.ok > 20
    with pytest.raises(UsageError, match="no option 'speed'"):
        sd.infer_slide(place / "slide.svs", place / "bundle", speed=2)
    with pytest.raises(SlideError):
        sd.infer_slide(tmp_path / "none.svs", place / "bundle", progress=False)


def test_scores_are_a_table_and_pictures_are_pictures(place: Path) -> None:
    pandas = pytest.importorskip("pandas")
    result = sd.read_result(place / "result")
    assert isinstance(result.scores, pandas.DataFrame)
    assert np.array_equal(result.scores["HYPOXIA"], result.pathways[:, 0])
    assert np.array_equal(result.scores["x"], result.coords[:, 0])
    laid = result.map("hypoxia")
    cells = result.tile_cells
    assert np.array_equal(laid[cells[:, 1], cells[:, 0]], result.pathways[:, 0])
    picture = result.plot("HYPOXIA")
    assert min(picture.size) > 500


def test_scores_without_pandas_say_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = sd.read_result(place / "result")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"stamp-deploy\[formats\]"):
        result.scores  # noqa: B018
    assert result.to_arrow().num_rows == 36


def test_everything_shows_itself_in_a_line(place: Path) -> None:
    """At a prompt nobody wants arrays and pictures; names that tab completion offers are the public ones."""
    with sd.open_slide(place / "slide.svs") as slide:
        batch = next(iter(slide.tiles(tile_px=64, mpp=0.5, batch=4)))
        shown = [repr(slide), repr(batch)]
    result = sd.read_result(place / "result")
    shown += [repr(result), repr(sd.load_bundle(place / "bundle")), repr(result.trust)]
    assert all(len(text) < 700 and "\n" not in text and "array(" not in text for text in shown), shown
    assert "slide.svs: 400 x 400 px at 0.5 x 0.5 um/px" in shown[0]
    assert "4 tiles of 64 px" in shown[1]
    assert "SlideResult of slide.svs: 36 tiles of 64 px" in shown[2]
    assert "4 pathways" in shown[3]
    assert [name for name in dir(sd) if not name.startswith("_")] == sorted(set(sd.__all__) - {"__version__"})
    with pytest.raises(UsageError, match="3 is no name"):
        result.plot(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("verdict", ["outside", "doubtful", "not judged", "inside"])
def test_the_card_of_a_notebook_says_whether_the_slide_is_known(verdict: Verdict) -> None:
    n = 40
    trust = SlideTrust(
        verdict,
        ("less eosin",),
        tile_distance=np.ones(n, np.float32),
        tile_flags=np.r_[np.full(10, TileFlag.INK), np.zeros(n - 10)].astype(np.uint16),
    )
    html = api.SlideResult.of(make_result(n_tiles=n, trust=trust))._repr_html_()
    assert VERDICTS[verdict][1] in html and "10 of 40 tiles (25.0 %); 10 ink" in html
    assert ("less eosin" in html) == (verdict != "inside")


def test_the_card_of_a_notebook_escapes_what_it_shows() -> None:
    result = make_result(n_tiles=60, pathways=("<script>alert(1)</script>", "HALLMARK_HYPOXIA", *"cdefgh"), heads=2)
    result = replace(result, slide=replace(result.slide, name='<img src="x" onerror="y">.svs'))
    html = api.SlideResult.of(result)._repr_html_()
    assert "<script" not in html
    assert '<img src="x"' not in html
    assert html.count("<img ") == 6
    assert "Hypoxia" in html
    assert "8 pathways (5 shown)" in html
    assert result.research_use in html


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("HALLMARK_HYPOXIA", 0), ("hypoxia", 0), ("Hypoxia", 0), ("E2F targets", 1), ("e2f_targets", 1)],
)
def test_pathways_are_found_by_the_names_that_people_use(wanted: str, found: int) -> None:
    names = ("HALLMARK_HYPOXIA", "HALLMARK_E2F_TARGETS", "KEGG_APOPTOSIS", "HALLMARK_APOPTOSIS")
    assert find_name(names, wanted) == found


def test_pathways_that_do_not_exist_or_are_not_one() -> None:
    names = ("HALLMARK_HYPOXIA", "KEGG_APOPTOSIS", "HALLMARK_APOPTOSIS")
    with pytest.raises(UsageError, match="HALLMARK_HYPOXIA"):
        find_name(names, "hypoxa")
    with pytest.raises(UsageError, match="fits 2 names - write one of: KEGG_APOPTOSIS, HALLMARK_APOPTOSIS"):
        find_name(names, "apoptosis")


def test_tiles_of_an_open_slide_are_the_consumers_own(place: Path) -> None:
    bundle = sd.load_bundle(place / "bundle")
    with sd.open_slide(place / "slide.svs") as slide:
        assert (slide.width, slide.mpp.mpp_x) == (400, 0.5)
        batches = list(slide.tiles(bundle, batch=4, all_tiles=True))
        assert all((batch.status == TileStatus.OK).all() for batch in batches)
        tiles = np.concatenate([batch.pixels for batch in batches])
        coords = np.concatenate([batch.coords for batch in batches])
        assert tiles.shape == (36, 64, 64, 3)
        for tile, (x, y) in zip(tiles, coords, strict=True):
            assert np.abs(tile.astype(int) - slide.read_region(0, int(x), int(y), 64, 64)).max() <= 3
        assert next(iter(slide.tiles(tile_px=32, mpp=1.0, overlap_px=8, batch=2))).pixels.shape == (2, 32, 32, 3)
        assert slide.tissue().fraction > 0.5
        with pytest.raises(SlideError, match="coarser"):
            next(slide.tiles(mpp=0.1))


def test_a_picture_saved_from_a_notebook_opens(place: Path, tmp_path: Path) -> None:
    sd.read_result(place / "result").plot("hypoxia").save(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.mode == "RGB"
