"""Options are checked when they are made, and hashed by what can change a score."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from stamp_deploy.config import InferOptions
from stamp_deploy.errors import UsageError

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0},
        {"batch": 5000},
        {"threads": -1},
        {"max_unreadable": 1.5},
        {"max_unreadable": float("nan")},
        {"time_limit_s": 0.0},
        {"time_limit_s": float("inf")},
        {"writers": ()},
        {"min_fraction": 0.0},
        {"min_fraction": 1.01},
        {"min_fraction": float("nan")},
        {"min_fraction": 0.5, "all_tiles": True},
        {"tissue_mask": HERE, "all_tiles": True},
        {"writers": ("tissue-geojson",), "all_tiles": True},
        {"roi": HERE / "missing.geojson"},
        {"roi": HERE, "roi_use": "both"},
        {"roi_use": "split"},
    ],
)
def test_impossible_values_are_refused(values: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(UsageError):
        InferOptions(**values)


FILE = Path(__file__)
SCORING: dict[str, object] = {
    "mpp": 0.25,
    "engine": "openvino",
    "precision": "fp16",
    "exact": True,
    "all_tiles": True,
    "max_unreadable": 0.5,
    "min_fraction": 0.5,
    "roi": FILE,
    "tissue_mask": FILE,
    "adapter": "lung",
    "icc": "srgb",
    "strict": True,
}
"""An option that can change a score, or whether there is one -> another value of it."""
NOT_SCORING = {"batch": 3, "threads": 2, "writers": ("json",), "time_limit_s": 9.0, "overwrite": True}


@pytest.mark.parametrize("name", SCORING)
def test_the_hash_covers_what_changes_scores(name: str) -> None:
    assert dataclasses.replace(InferOptions(), **{name: SCORING[name]}).sha256() != InferOptions().sha256()


@pytest.mark.parametrize("name", NOT_SCORING)
def test_the_hash_leaves_out_what_changes_no_score(name: str) -> None:
    assert dataclasses.replace(InferOptions(), **{name: NOT_SCORING[name]}).sha256() == InferOptions().sha256()


def test_every_option_is_of_one_kind_or_the_other() -> None:
    assert {field.name for field in dataclasses.fields(InferOptions)} == {*SCORING, *NOT_SCORING, "roi_use", "url"}


def test_the_hash_covers_that_a_server_scores_and_not_its_address() -> None:
    one, other = (InferOptions(engine="triton", url=url) for url in ("http://a:8000", "http://b:8000"))
    assert one.sha256() == other.sha256() != InferOptions().sha256()


def test_the_hash_covers_what_is_in_files_and_no_record_names_them(tmp_path: Path) -> None:
    path = tmp_path / "DOE_JANE.geojson"
    path.write_text("1")
    first = InferOptions(roi=path)
    hashes = {first.sha256(), InferOptions(roi=path, roi_use="split").sha256(), InferOptions(roi=tmp_path).sha256()}
    path.write_text("2")
    hashes |= {first.sha256(), InferOptions(roi=tmp_path).sha256(), InferOptions().sha256()}
    assert len(hashes) == 6
    assert "DOE" not in json.dumps(first.to_dict())


def test_options_of_later_versions_leave_the_hash_of_a_default_run_as_it_was() -> None:
    assert set(InferOptions().scoring_dict()) == {"mpp", "engine", "precision", "exact", "all_tiles", "max_unreadable"}


def test_limits_of_the_schema_are_those_that_are_checked() -> None:
    """The schema reads them from the fields' metadata, the refusals have words of their own."""
    limited = {field.name: field.metadata for field in dataclasses.fields(InferOptions) if field.metadata}
    assert {"mpp", "batch", "threads", "min_fraction", "max_unreadable", "time_limit_s"} == limited.keys()
    for name, limits in limited.items():
        for key, value in limits.items():
            beyond = {"ge": math.nextafter(value, -math.inf), "le": math.nextafter(value, math.inf), "gt": value}[key]
            if name in ("batch", "threads"):
                beyond = value - 1 if key == "ge" else value + 1
            with pytest.raises(UsageError):
                InferOptions(**{name: beyond})
            inside = math.nextafter(value, math.inf) if key == "gt" else value
            assert getattr(InferOptions(**{name: inside}), name) == inside


def test_nothing_at_run_time_needs_pydantic() -> None:
    code = "import sys, stamp_deploy as sd; sd.infer_slide, sd.InferOptions(); print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
