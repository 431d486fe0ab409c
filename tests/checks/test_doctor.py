"""The doctor's lines: what each says of a machine that is well, and of one that is not."""

from __future__ import annotations

import os
import sys
import tomllib
import types
from importlib import metadata
from pathlib import Path

import pytest
from support.cli_runner import Runner, runner  # noqa: F401 - a fixture

from stamp_deploy.checks import doctor
from stamp_deploy.checks.doctor import Check, run_checks
from stamp_deploy.system import offline

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def line(name: str) -> Check:
    return next(check for check in run_checks().checks if check.name == name)


def test_a_silent_process_is_told_to_be_silent() -> None:
    found = line("silence")
    assert found.status == "ok", found.detail
    assert "ONNX Runtime" in found.detail and "OpenVINO" in found.detail


@pytest.mark.parametrize("name", [*offline.SWITCHES, *offline.BLOCKED])
def test_a_switch_turned_back_fails(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in offline.SWITCHES:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    found = line("silence")
    assert found.status == "fail"
    assert found.detail.endswith(name)


def test_a_library_that_came_too_early_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_LATE", ["onnxruntime"])
    found = line("silence")
    assert (found.status, found.detail.split()[0]) == ("fail", "onnxruntime")


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu"])
def test_a_version_that_nobody_looked_at_is_warned_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda other: "1.33.0rc1" if other == name else real(other))
    found = line("silence")
    assert found.status == "warn"
    assert f"{name} 1.33.0rc1" in found.detail


def test_no_newer_version_is_installed_than_was_looked_at() -> None:
    """pyproject.toml's upper bounds are the minor versions after those of `KNOWN`."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["openvino"]]
    for name, (major, minor) in offline.KNOWN.items():
        (requirement,) = [text for text in wanted if text.startswith(f"{name}>=")]
        assert requirement.endswith(f",<{major}.{minor + 1}"), requirement


def test_a_check_that_breaks_fails_and_the_others_still_run(
    runner: Runner,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> tuple[str, str]:
        raise OSError("no such\nlibrary")

    monkeypatch.setattr(doctor, "_openslide", broken)
    report = run_checks()
    assert not report.ok
    found = {check.name: check for check in report.checks}
    assert found["openslide"].status == "fail" and "no such library" in found["openslide"].detail
    assert found["self-test"].status == "ok", found["self-test"].detail
    done = runner("doctor")
    assert done.code == 1
    assert "this machine is not ready" in done.out
    assert all(len(text.split()) > 1 for text in done.out.splitlines())


@pytest.mark.parametrize("fault", ["wrong pixels", "too few tiles"])
def test_the_self_test_notices(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that gives other pixels, or leaves tiles out, is not called ready."""
    import stamp_deploy.tiles as tiles

    real = tiles.open_tiles

    class Faulty:
        def __init__(self, source: object) -> None:
            self.source = source

        def __enter__(self) -> Faulty:
            return self

        def __exit__(self, *_: object) -> None:
            self.source.close()  # type: ignore[attr-defined]

        def __iter__(self):  # type: ignore[no-untyped-def]
            for batch in self.source:  # type: ignore[attr-defined]
                if fault == "wrong pixels":
                    batch.pixels[0, 100, 100] ^= 0x40
                    yield batch

    monkeypatch.setattr(tiles, "open_tiles", lambda *args, **options: Faulty(real(*args, **options)))
    found = line("self-test")
    assert found.status == "fail", found.detail


def test_the_environment_is_left_as_it_was() -> None:
    before = dict(os.environ)
    run_checks()
    assert dict(os.environ) == before
