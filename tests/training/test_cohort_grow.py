"""Building a cohort side by side, going on after a stop, and adding samples to one that is there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cohort_samples import build, config, sample

from stamp_deploy.errors import DataError, UsageError
from stamp_deploy.training.cohort import build as build_module
from stamp_deploy.training.cohort import load_cohort
from stamp_deploy.training.cohort.build import build_cohort
from stamp_deploy.training.cohort.config import SampleConfig
from stamp_deploy.training.cohort.unfinished import NOTE, Unfinished


def files_of(folder: Path) -> dict[str, bytes]:
    """Content by name, of what does not hold a time of its own."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {k: v for k, v in found.items() if not k.endswith(".h5ad")}


def test_samples_made_side_by_side_are_the_same(tmp_path: Path) -> None:
    path = config(tmp_path, *(sample(tmp_path, f"S{i}", patient_id=f"P{i}") for i in range(3)))
    one = build(path, tmp_path / "one")
    two = build_cohort(path, tmp_path / "two", pictures=False, jobs=2, log=lambda line: None)
    assert [s.id for s in one] == [s.id for s in two] == ["S0", "S1", "S2"], "in the config's order"
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert (a.expression().X != b.expression().X).nnz == 0
    assert not list(tmp_path.glob(".*")), "nothing is left beside the cohorts"


def test_a_build_goes_on_from_the_samples_that_are_finished(tmp_path: Path) -> None:
    good = sample(tmp_path, "S0"), sample(tmp_path, "S1")
    bad = sample(tmp_path, "S2", counts=np.full((9, 30), -1, np.float32))
    said: list[str] = []
    with pytest.raises(DataError, match="negative"):
        build_cohort(config(tmp_path, *good, bad), tmp_path / "out", pictures=False, log=said.append)
    assert "2 samples are finished and kept" in said[-1] and not (tmp_path / "out").exists()
    notes = {p: p.stat().st_mtime_ns for p in Unfinished(tmp_path / "out").folder.glob(f"samples/*/{NOTE}")}
    assert len(notes) == 2
    mended = sample(tmp_path, "S2")
    said.clear()
    made = build_cohort(config(tmp_path, *good, mended), tmp_path / "out", pictures=False, log=said.append)
    assert [s.id for s in made] == ["S0", "S1", "S2"] and said[0] == "2 samples were finished by an earlier build"
    assert not any(line.startswith("S0:") for line in said) and any(line.startswith("S2:") for line in said)
    assert not list(tmp_path.glob(".*")) and not list((tmp_path / "out").rglob(NOTE))


def test_a_sample_whose_input_or_setting_changed_is_made_anew(tmp_path: Path) -> None:
    bad = sample(tmp_path, "S1", counts=np.full((9, 30), -1, np.float32))
    for values in ({}, {"tile_px": 48}):
        with pytest.raises(DataError):
            build(config(tmp_path, sample(tmp_path, "S0"), bad, **values), tmp_path / "out")
    again = sample(tmp_path, "S0", counts=np.full((9, 30), 7, np.float32))
    made = build(config(tmp_path, again, sample(tmp_path, "S1"), tile_px=48), tmp_path / "out")
    assert made["S0"].expression().X.max() == 7 and made["S0"].tiles().shape[1] == 48


def test_an_input_that_changes_while_its_sample_is_made_counts_as_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = build_module._one

    def changed_meanwhile(row: SampleConfig, *args: Any, **named: Any) -> Any:
        made = original(row, *args, **named)
        sample(tmp_path, "S0", counts=np.full((9, 30), 7, np.float32))
        return made

    bad = sample(tmp_path, "S1", counts=np.full((9, 30), -1, np.float32))
    path = config(tmp_path, sample(tmp_path, "S0"), bad)
    with monkeypatch.context() as patch, pytest.raises(DataError):
        patch.setattr(build_module, "_one", changed_meanwhile)
        build(path, tmp_path / "out")
    sample(tmp_path, "S1")
    assert build(path, tmp_path / "out")["S0"].expression().X.max() == 7


KILLED = """
import sys, time
from pathlib import Path
from stamp_deploy.training.cohort import build as b, unfinished
finish = unfinished.Unfinished.finish
def slow(self, facts, key):
    finish(self, facts, key)
    print(facts.id, flush=True)
    time.sleep(30)
unfinished.Unfinished.finish = slow
b.build_cohort(Path(sys.argv[1]), Path(sys.argv[2]), pictures=False, log=lambda line: None)
"""


def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    path = config(tmp_path, sample(tmp_path, "S0"), sample(tmp_path, "S1"))
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline().strip() == b"S0"
    with pytest.raises(UsageError, match="another build of this cohort"):
        build(path, tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.wait()
    said: list[str] = []
    made = build_cohort(path, tmp_path / "out", pictures=False, log=said.append)
    assert said[0] == "1 samples were finished by an earlier build" and len(made.samples) == 2


def test_samples_are_added_to_a_cohort_that_is_there(tmp_path: Path) -> None:
    first = sample(tmp_path, "S0")
    build(config(tmp_path, first), tmp_path / "out")
    stamp = (tmp_path / "out" / "samples" / "S0" / "tiles.npy").stat().st_mtime_ns
    path = config(tmp_path, first, sample(tmp_path, "S1", patient_id="P2"))
    with pytest.raises(UsageError, match="already holds"):
        build(path, tmp_path / "out")
    made = build_cohort(path, tmp_path / "out", append=True, pictures=False, log=lambda line: None)
    assert [s.id for s in made] == ["S0", "S1"] and made.patients == ("P1", "P2")
    assert (tmp_path / "out" / "samples" / "S0" / "tiles.npy").stat().st_mtime_ns == stamp
    only_new = config(tmp_path, sample(tmp_path, "S2"))
    made = build_cohort(only_new, tmp_path / "out", append=True, pictures=False, log=lambda line: None)
    assert [s.id for s in made] == ["S0", "S1", "S2"]
    with pytest.raises(UsageError, match="the cohort has tile_px = 32, the config 48"):
        build_cohort(config(tmp_path, sample(tmp_path, "S3"), tile_px=48), tmp_path / "out", append=True)
    with pytest.raises(DataError, match="not a cohort folder"):
        build_cohort(only_new, tmp_path / "none", append=True)


def test_an_appending_that_fails_leaves_the_cohort_as_it_was(tmp_path: Path) -> None:
    build(config(tmp_path, sample(tmp_path, "S0")), tmp_path / "out")
    before = (tmp_path / "out" / "cohort.json").read_bytes()
    bad = sample(tmp_path, "S2", counts=np.full((9, 30), -1, np.float32))
    path = config(tmp_path, sample(tmp_path, "S1"), bad)
    with pytest.raises(DataError):
        build_cohort(path, tmp_path / "out", append=True, pictures=False, log=lambda line: None)
    assert (tmp_path / "out" / "cohort.json").read_bytes() == before and len(load_cohort(tmp_path / "out").samples) == 1
    assert sorted(p.name for p in (tmp_path / "out" / "samples").iterdir()) == ["S0"]
