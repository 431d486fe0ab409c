"""The summary of a folder of results: tables with known truth, the clustered heat map, the page."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture
from support.result_factory import make_head, stored
from support.result_folders import NAMES, facts, slide_result

from stamp_deploy.cases import write_summary
from stamp_deploy.cases.matrix import make_matrix
from stamp_deploy.cases.slide_record import read_results
from stamp_deploy.errors import UsageError
from stamp_deploy.validation import Validation

SLIDES = {
    "a1.svs": ([2.0, 2, 0, 0, 0], "inside", "case-A"),
    "a2.svs": ([1.0, 1, 0, 0, 0], "doubtful", "case-A"),
    "a3.svs": ([9.0, -9, 9, -9, 9], "outside", "case-A"),
    "b1.svs": ([-2.0, -2, 1, 1, 0], "inside", "case-B"),
    "c1.svs": ([-1.9, -2, 1, 1, 0], "not judged", ""),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five slides, three of one case, as a batch leaves them."""
    out = tmp_path_factory.mktemp("cases") / "results"
    rows = []
    for seed, (name, (means, verdict, case)) in enumerate(SLIDES.items()):
        formats = ("json", "hdf5", "report") if name == "a1.svs" else ("json", "hdf5")
        stored(slide_result(name, means, verdict, seed=seed), out / f"{name[:2]}-0{seed}", formats)
        rows.append({"key": f"{name[:2]}-0{seed}", "case_id": case})
    (out / "batch.json").write_text(json.dumps({"slides": rows}))
    return out


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def test_tables_hold_what_each_result_says(finished: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    written = write_summary(finished, tmp_path)
    assert (written.slides, written.cases, written.unread) == (5, 2, ())
    rows = {row["slide"]: row for row in table(tmp_path / "pathways.csv")}
    for name, (means, verdict, case) in SLIDES.items():
        got = [float(rows[name][f"pathway.{pathway}"]) for pathway in NAMES]
        assert got == pytest.approx(means, abs=1e-4)
        assert (rows[name]["verdict"], rows[name]["case_id"]) == (verdict, case)
    calls = table(tmp_path / "calls.csv")
    assert [row["call"] for row in calls] == ["MSI-H"] * 5
    assert {float(row["value"]) for row in calls} == {0.81}
    figures = table(tmp_path / "figures.csv")
    assert len(figures) == 5 * len(NAMES)
    assert {row["validated"] for row in figures if row["pathway"] == "UNSEEN"} == {"False"}
    for name in ("pathways", "figures", "calls", "cases"):
        same = parquet.read_table(tmp_path / f"{name}.parquet")
        assert same.num_rows == len(table(tmp_path / f"{name}.csv"))


def test_slides_of_a_case_are_joined_by_tissue_without_those_outside(finished: Path, tmp_path: Path) -> None:
    write_summary(finished, tmp_path)
    rows = {row["case_id"]: row for row in table(tmp_path / "cases.csv")}
    assert list(rows) == ["case-A", "case-B"]
    one, two = (slide.tissue_mm2 for slide in read_results(finished).slides if slide.name in ("a1.svs", "a2.svs"))
    assert one is not None and two is not None
    assert float(rows["case-A"]["pathway.HALLMARK_HYPOXIA"]) == pytest.approx((2 * one + two) / (one + two), abs=1e-4)
    case = rows["case-A"]
    assert (case["slides"], case["slides_left_out"], case["doubtful_slides"]) == ("3", "1", "1")


def test_a_sheet_outranks_the_batch_and_no_case_is_read_out_of_a_name(
    finished: Path,
    tmp_path: Path,
    runner: Runner,  # noqa: F811
) -> None:
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("slide,case_id\nc1.svs,case-C\nb1.svs,case-C\n")
    done = runner("summary", finished, "--cases", sheet, "-o", tmp_path / "board")
    assert done.code == 0, done.err
    assert "3 in" not in done.out and "5, in 2 cases" in done.out
    cases = {row["slide"]: row["case_id"] for row in table(tmp_path / "board" / "pathways.csv")}
    assert cases == {"a1.svs": "case-A", "a2.svs": "case-A", "a3.svs": "case-A", "b1.svs": "case-C", "c1.svs": "case-C"}
    sheet.write_text("slide,case_id\nc1.svs,case-C\nold/c1.svs,case-D\n")
    assert runner("summary", finished, "--cases", sheet, "-o", tmp_path / "x").code == 2
    sheet.write_text("slide,mpp\nc1.svs,0.5\n")
    assert "names no case" in runner("summary", finished, "--cases", sheet, "-o", tmp_path / "x").err
    assert not (tmp_path / "x").exists()


def test_alike_slides_stand_together_and_outsiders_take_no_part(finished: Path) -> None:
    results = read_results(finished)
    matrix = make_matrix(results)
    order = [results.slides[i].name for i in matrix.slides]
    assert order[-1] == "a3.svs" and matrix.outside == 1
    assert abs(order.index("b1.svs") - order.index("c1.svs")) == 1
    assert abs(order.index("a1.svs") - order.index("a2.svs")) == 1
    assert matrix.names[-1] == "UNSEEN" and matrix.unvalidated == 1
    row = matrix.values[order.index("b1.svs")]
    assert row[matrix.names.index("HALLMARK_HYPOXIA")] == pytest.approx(-2, abs=1e-4)
    assert matrix.scale.startswith("common scale")


def test_without_a_common_scale_the_heat_map_says_so(tmp_path: Path) -> None:
    out = tmp_path / "results"
    for seed, value in enumerate((1.0, 2.0, 3.0, 4.0)):
        bare = Validation("", (), lacks="everything")
        stored(slide_result(f"s{seed}.svs", [value] * 5, seed=seed, validation=bare), out / f"s{seed}")
    matrix = make_matrix(read_results(out))
    assert "no common scale" in matrix.scale
    assert matrix.unvalidated == 0
    assert sorted(matrix.values[:, 0]) == pytest.approx(
        np.array([-1.5, -0.5, 0.5, 1.5]) / np.std([1, 2, 3, 4], ddof=1), abs=1e-3
    )
    write_summary(out)
    assert "no common scale" in (out / "summary" / "index.html").read_text()


def test_the_heat_map_is_a_picture_of_any_size(finished: Path, tmp_path: Path) -> None:
    write_summary(finished, tmp_path)
    picture = Image.open(tmp_path / "heatmap.png").convert("RGB")
    assert picture.width > 400 and picture.height > 300
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    stored(slide_result("only.svs", [0.0] * 5), tmp_path / "one" / "only")
    write_summary(tmp_path / "one")
    assert (tmp_path / "one" / "summary" / "heatmap.png").stat().st_size > 2000


def test_the_page_holds_all_and_asks_for_nothing(finished: Path, tmp_path: Path) -> None:
    write_summary(finished)
    page = (finished / "summary" / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r"(?:src|href)=\"(?!data:)([^\"]*)\"", page))
    assert links == {"../a1-00/report.html"}
    assert (finished / "summary" / "../a1-00/report.html").is_file()
    assert "http://" not in page and "https://" not in page and "unsafe-inline" not in page
    assert page.count("data:image/jpeg") == 5
    for text in ("case-A", "outside", "stained more strongly", "UNSEEN (not validated)", "For research use only"):
        assert text in page, text


def test_names_from_outside_cannot_run_as_script_or_formula(tmp_path: Path) -> None:
    evil = "=1+</script><script>alert(1)</script>.svs"
    stored(slide_result(evil, [0.0] * 5), tmp_path / "results" / "evil")
    write_summary(tmp_path / "results", cases={evil: "<b>x</b>"})
    page = (tmp_path / "results" / "summary" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<b>x</b>" not in page
    assert table(tmp_path / "results" / "summary" / "pathways.csv")[0]["slide"] == f"'{evil}"


def test_what_cannot_be_read_is_told_and_bundles_are_not_mixed(tmp_path: Path) -> None:
    out = tmp_path / "results"
    with pytest.raises(UsageError, match="no such folder"):
        write_summary(out)
    out.mkdir()
    with pytest.raises(UsageError, match="no finished result"):
        write_summary(out)
    good = slide_result("good.svs", [0.0] * 5)
    stored(good, out / "good")
    stored(good, out / "bad")
    (out / "bad" / "result.json").write_text("{")
    record = json.loads((out / "good" / "result.json").read_text())
    stored(good, out / "odd")
    del record["heads"]
    (out / "odd" / "result.json").write_text(json.dumps(record))
    stored(good, out / "bare", ("hdf5",))
    written = write_summary(out)
    assert written.slides == 1
    assert {item.key for item in written.unread} == {"bad", "bare", "odd"}
    assert "3 results could not be read" in (out / "summary" / "index.html").read_text()
    from dataclasses import replace

    stored(replace(good, bundle=replace(good.bundle, sha256="c" * 64)), out / "other")
    with pytest.raises(UsageError, match="2 bundles"):
        write_summary(out)


def test_results_of_the_first_schema_are_summarised_too(tmp_path: Path) -> None:
    out = tmp_path / "results"
    stored(slide_result("old.svs", [1.0] * 5), out / "old")
    record = json.loads((out / "old" / "result.json").read_text())
    record["schema_version"] = 1
    for name in ("summaries", "trust", "validation"):
        del record[name]
    del record["pathways"]["summarised"]
    (out / "old" / "result.json").write_text(json.dumps(record))
    write_summary(out)
    (row,) = table(out / "summary" / "pathways.csv")
    assert (row["verdict"], row["tissue_mm2"], row["scores"]) == ("not judged", "", "pathways")
    assert table(out / "summary" / "figures.csv") == []


def test_facts_are_what_the_tests_think() -> None:
    assert [item.validated for item in facts().pathways] == [True] * 4 + [False]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_sorts_searches_and_fits_a_phone(finished: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    write_summary(finished)
    url = (finished / "summary" / "index.html").as_uri()
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
        page.goto(url)

        def names() -> list[str]:
            return [text.strip() for text in page.locator("tbody tr:visible .name").all_inner_texts()]

        assert page.locator(".value").first.inner_text() == "2.00"
        page.get_by_role("button", name="Trust").click()
        assert names()[:2] == ["a3.svs", "a2.svs"]
        page.locator("#pathway").select_option(label="E2F targets")
        page.locator("th.chosen button").click()
        assert names()[0] == "a3.svs" and names()[-1] == "a1.svs"
        page.locator("th.chosen button").click()
        assert names()[0] == "a1.svs"
        page.fill("#search", "case-b")
        assert names() == ["b1.svs"]
        page.fill("#search", "")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.fill("#search", "case-b")
        assert names() == ["b1.svs"]
        browser.close()
    assert told == []


def test_pathways_that_are_not_validated_come_last_and_no_probability_is_rounded_to_certainty(tmp_path: Path) -> None:
    first, *rest = facts().pathways
    known = replace(facts(), pathways=(replace(first, r_low=-0.1), *rest))
    heads = (make_head("msi", 150, probabilities=(0.0003, 0.9997)),)
    stored(slide_result("a.svs", [0.0] * len(NAMES), heads=heads, validation=known), tmp_path / "out" / "a")
    write_summary(tmp_path / "out")
    page = (tmp_path / "out" / "summary" / "index.html").read_text()
    weak = [text.endswith("(not validated)") for text in re.findall(r"<option value=.*?>(.*?)</option>", page)]
    assert weak == [False, False, False, True, True]
    assert "&gt; 0.99" in page and "1.00<" not in page
