"""Alert rules and dashboard: the metrics that they name exist, and Prometheus' own tool accepts and tries the rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from stamp_deploy.batch.records.metrics import BatchMetrics

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [t["expr"] for panel in PANELS for t in panel["targets"]]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """What a batch writes: name of each sample -> its labels and their values."""
    path = tmp_path_factory.mktemp("metrics") / "stamp.prom"
    metrics = BatchMetrics(path, version="1", bundle_sha256="x")
    metrics.slide_ended("done", 3.0)
    metrics.tiles_seen(dict.fromkeys(("ok", "missing", "corrupt", "timeout", "background"), 1))
    metrics.stage_seconds({"read": 1.0})
    metrics.worker_restarted("crashed")
    metrics.write()
    found: dict[str, set[tuple[str, str]]] = {}
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels.items())
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_label_and_value_is_written(expression: str, samples: dict[str, set[tuple[str, str]]]) -> None:
    selectors = re.findall(r"(stamp_\w+)(?:\{([^}]*)\})?", expression)
    assert selectors
    for name, matchers in selectors:
        assert name in samples, name
        for label, values in re.findall(r'(\w+)!?=~?"([^"]*)"', matchers or ""):
            for value in values.split("|"):
                assert label == "instance" or (label, value) in samples[name], f"{name}{{{label}={value}}}"
    for label in {label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")}:
        known = {"instance", "le"} | {key for name, _ in selectors for key, _ in samples[name]}
        assert label in known, label


def test_rules_pass_promtool_and_their_own_tests(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    tried = set(
        re.findall(r"alertname: (\w+)\s+eval_time: \S+\s+exp_alerts:\n", (MONITORING / "alerts_test.yaml").read_text())
    )
    assert tried == {rule["alert"] for rule in ALERTS}, "each is seen to fire"
    panels = [t["expr"].replace("$host", "a") for panel in PANELS for t in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(panels)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for arguments in (
        ["check", "rules", "alerts.yaml"],
        ["check", "rules", str(tmp_path / "panels.yaml")],
        ["test", "rules", "alerts_test.yaml"],
    ):
        done = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_and_what_to_do_and_the_guide_knows_it() -> None:
    guide = (ROOT / "docs" / "guides" / "hospital.md").read_text()
    for rule in ALERTS:
        assert {"summary", "description"} <= set(rule["annotations"]), rule["alert"]
        assert f"`{rule['alert']}`" in guide, rule["alert"]
