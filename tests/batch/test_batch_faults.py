"""Batches where things go wrong for real: a full disk, damaged tiles, every bad file at hand, names that leak."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.bundle_factory import make_bundle
from support.slide_factory import damage, texture, write_slide
from test_batch import lines, make_slide, result_folders, run

from stamp_deploy.atomic import is_done
from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.verbs.audit import audit

READABLE = {"CMU-1-Small-Region.svs", "highdicom_sm_image.dcm"}
"""What of the real data can be scored as it is; everything else lacks its scale, its tissue or its bytes."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here: root rights are needed")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of batch.json by file name."""
    return {row["name"]: row for row in json.loads((out / "batch.json").read_text())["slides"]}


def test_full_disk_is_exit_6_leaves_whole_results_only_and_resumes(
    tmp_path: Path, bundle: Path, small_disk: Path
) -> None:
    slides, out = tmp_path / "slides", small_disk / "out"
    slides.mkdir()
    for i in range(4):
        make_slide(slides / f"s{i}.tif", i, side=2048)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_750_000))
    options = (slides, "--bundle", bundle, "-o", out, "--ignore-space", "--all-tiles")
    first = run(*options)
    assert first.returncode == 6, first.stdout + first.stderr
    finished = result_folders(out)
    assert all(is_done(path) for path in finished), "a result was left half-written"
    assert len(finished) < 4
    assert not any(line["event"] == "slide" and line["state"] != "done" for line in lines(first)), "a slide was blamed"
    ballast.unlink()
    second = run(*options)
    assert second.returncode == 0, second.stdout + second.stderr
    assert sum(is_done(path) for path in out.iterdir() if path.is_dir()) == 4


def test_too_small_a_disk_is_told_before_any_work(tmp_path: Path, bundle: Path, small_disk: Path) -> None:
    slide = make_slide(tmp_path / "s.tif", 1)
    refused = run(slide, "--bundle", bundle, "-o", small_disk / "out")
    assert refused.returncode == 6
    assert "are needed and" in refused.stderr and "--ignore-space" in refused.stderr


def test_budget_of_unreadable_tiles_decides(tmp_path: Path, bundle: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    pixels = texture(1024, 1024, 3)
    for name, spoilt in (("whole", 0), ("some", 1), ("many", 6)):
        path = write_slide(slides / f"{name}.svs", pixels, tile=128)
        for number in range(20, 20 + spoilt):
            damage(path, number, "garbage")
    options = (slides, "--bundle", bundle, "-o", out, "--all-tiles", "--max-unreadable", 0.05)
    done = run(*options)
    assert done.returncode == 3, done.stdout + done.stderr
    found = rows(out)
    assert [found[f"{name}.svs"]["state"] for name in ("whole", "some", "many")] == ["done", "done", "failed"]
    assert found["some.svs"]["tiles"]["corrupt"] == 4, "one storage tile is under four model tiles"
    assert "unreadable, more than the budget of 5.00%" in found["many.svs"]["reason"]
    assert any("could not be read" in warning for warning in found["some.svs"]["warnings"])


def test_every_bad_file_among_good_ones(tmp_path: Path, bundle: Path, data_dir: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for source in (*sorted((data_dir / "slides").iterdir()), *sorted((data_dir / "dicom").iterdir())):
        shutil.copyfile(source, slides / source.name)
    make_slide(slides / "made.tif", 1)
    make_slide(slides / "unscaled.tif", 2, mpp=None)
    (slides / "empty.svs").touch()
    (slides / "text.ndpi").write_text("not a slide")
    (slides / "cut.svs").write_bytes((data_dir / "slides" / "CMU-1-Small-Region.svs").read_bytes()[:400_000])
    (slides / "folder.svs").mkdir()
    (slides / "dangling.tif").symlink_to(slides / "nothing")
    done = run(slides, "--bundle", bundle, "-o", out)
    assert done.returncode == 3, done.stdout + done.stderr
    found = rows(out)
    assert {name for name, row in found.items() if row["state"] == "done"} == {*READABLE, "made.tif"}
    bad = {name: row["reason"] for name, row in found.items() if row["state"] != "done"}
    assert bad.keys() >= {"histolab_broken.svs", "osp_unreadable.svs", "osp_unopenable.tiff", "empty.svs", "cut.svs"}
    assert bad["unscaled.tif"].startswith("the microns per pixel are unknown")
    for name, reason in bad.items():
        assert len(reason) > 20, name
        assert not re.search(r"\w+Error|Traceback", reason), f"{name}: a bug, not a stated reason: {reason}"


def test_nothing_that_names_a_patient_leaves_the_results(tmp_path: Path, bundle: Path) -> None:
    # None of the secrets can stand in a hash, a time or a number by chance.
    ward, out = tmp_path / "Doe_Jane_y1956", tmp_path / "out"
    ward.mkdir()
    make_slide(ward / "Doe-A1.tif", 1)
    (ward / "Doe-A2.tif").write_bytes((ward / "Doe-A1.tif").read_bytes()[:9000])
    (tmp_path / "list.csv").write_text(
        "slide,mpp,case_id\n" + "".join(f"Doe_Jane_y1956/Doe-A{i}.tif,,CASE-x4711\n" for i in (1, 2, 3))
    )
    done = run(
        tmp_path / "list.csv", "--bundle", bundle, "-o", out, writers="json,hdf5,parquet,heatmaps,report,geojson"
    )
    assert done.returncode == 3, done.stdout + done.stderr
    told = {"standard output": done.stdout, "standard error": done.stderr}
    state = out / ".stamp"
    logs = [*state.glob("*.prom"), *state.glob("audit-*.jsonl"), *state.glob("*.log"), state / "config.json"]
    told.update({path.name: path.read_text(errors="replace") for path in logs})
    assert len(told) >= 5
    for name, text in told.items():
        for secret in ("Doe", "Jane", "y1956", "x4711"):
            assert secret not in text, f"{secret} is in {name}"
    # Result files are named by file, which the user chose; folders and case ids stay out of them. The summary joins
    # slides by the case ids of the sheet, as it was asked to.
    for path in out.rglob("*"):
        if path.is_file() and path.name != "batch.json" and not path.name.startswith("ledger"):
            content = path.read_bytes()
            assert b"Doe_Jane" not in content, path.name
            assert b"x4711" not in content or path.parent == out / "summary", path.name


def test_audit_verb_finds_changed_logs_and_results(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "out"
    assert run(make_slide(tmp_path / "s.tif", 1), "--bundle", bundle, "-o", out).returncode == 0
    said = CliRunner().invoke(audit, [str(out), "--results"], catch_exceptions=False).output
    assert "2 events, chain unbroken" in said and "1 results are as they were logged" in said
    assert "1 batch reports name a last event" in said
    events = CliRunner().invoke(audit, [str(out), "--json"], catch_exceptions=False).output
    assert [json.loads(line)["event"] for line in events.splitlines()] == ["run", "slide"]

    (record,) = out.glob("*/result.json")
    record.write_text(record.read_text().replace("0", "1", 1))
    with pytest.raises(DataError, match="not as they were logged"):
        CliRunner().invoke(audit, [str(out), "--results"], catch_exceptions=False)
    (log,) = (out / ".stamp").glob("audit-*.jsonl")
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="cut short"):
        CliRunner().invoke(audit, [str(out)], catch_exceptions=False)
    log.unlink()
    with pytest.raises(UsageError, match="no audit log"):
        CliRunner().invoke(audit, [str(out)], catch_exceptions=False)
