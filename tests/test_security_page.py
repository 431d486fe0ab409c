"""docs/security.md names tests, targets and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stamp_deploy.system.offline import BLOCKED, KNOWN, SWITCHES

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:tests|csrc|stamp_deploy|benchmarks)/[\w./-]+)`", PAGE))))
def test_a_named_file_exists(name: str) -> None:
    assert (ROOT / name).exists()


def test_each_promise_names_its_test() -> None:
    rows = PAGE.split("## Promises")[1].split("##")[0].strip().splitlines()[2:]
    assert len(rows) >= 10
    for row in rows:
        assert re.search(r"`(tests/|make |csrc/)", row.split("|")[3]), row


def test_the_table_of_libraries_is_the_code_s() -> None:
    table = PAGE.split("## Telemetry of libraries")[1].split("## ")[0]
    for name, value in SWITCHES.items():
        assert f"`{name}={value}`" in table
    for package in BLOCKED:
        assert f"`{package}`" in table
    for name, (major, minor) in KNOWN.items():
        title = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[name]
        assert f"| {title} {major}.{minor} |" in table


def test_targets_and_rules_are_the_harness_s() -> None:
    from faults.attempt import LIMIT_S, MEMORY_BYTES
    from faults.judge import Outcome

    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)", PAGE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    faults = PAGE.split("## Faults")[1]
    assert all(f"- **{outcome}**:" in faults for outcome in Outcome)
    assert f"more than {LIMIT_S:.0f} s or {MEMORY_BYTES / 1e9:.1f} GB" in faults
