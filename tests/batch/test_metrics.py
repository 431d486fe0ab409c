"""The metrics file parses, counts right, and names no slide."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stamp_deploy.batch.records.metrics import BatchMetrics
from stamp_deploy.batch.states import AttemptState
from stamp_deploy.errors import DiskError


def _samples(path: Path) -> dict[str, float]:
    return {
        sample.name + "".join(f"|{v}" for k, v in sorted(sample.labels.items()) if k != "le"): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def test_textfile_is_read_back_by_the_prometheus_parser(tmp_path: Path) -> None:
    metrics = BatchMetrics(tmp_path / "stamp.prom", version="1.2", bundle_sha256="ab")
    metrics.slide_ended("done", 12.0)
    metrics.slide_ended("quarantined", 1.0)
    metrics.tiles_seen({"ok": 90, "corrupt": 2})
    metrics.stage_seconds({"engine": 3.5, "decode": 2.0})
    metrics.worker_restarted("crashed")
    metrics.queue(4, 1)
    metrics.write()
    samples = _samples(tmp_path / "stamp.prom")
    assert samples["stamp_slides_total|done"] == 1
    assert samples["stamp_slides_total|quarantined"] == 1
    assert samples["stamp_slides_total|failed"] == 0
    assert samples["stamp_tiles_total|ok"] == 90
    assert samples["stamp_stage_seconds_total|engine"] == 3.5
    assert samples["stamp_worker_restarts_total|crashed"] == 1
    assert samples["stamp_slides_waiting"] == 4
    assert samples["stamp_slide_seconds_count"] == 1
    assert samples["stamp_build_info|ab|1.2"] == 1
    assert not [name for name in samples if "_created" in name]  # when a counter was made is nobody's question
    assert [path.name for path in tmp_path.iterdir()] == ["stamp.prom"]


def test_a_slide_that_failed_is_no_success_and_no_time_runs_backwards(tmp_path: Path) -> None:
    metrics = BatchMetrics(tmp_path / "stamp.prom", version="1", bundle_sha256="x")
    metrics.slide_ended(AttemptState.FAILED, 12.0)
    metrics.slide_judged("outside")
    metrics.stage_seconds({"engine": -3.5, "read": 1.0})
    metrics.write()
    samples = _samples(tmp_path / "stamp.prom")
    assert samples["stamp_slide_seconds_count"] == 0 and samples["stamp_last_success_timestamp_seconds"] == 0
    assert samples["stamp_stage_seconds_total|engine"] == 0 and samples["stamp_stage_seconds_total|read"] == 1
    assert samples["stamp_trust_total|outside"] == 1 and samples["stamp_trust_total|inside"] == 0


def test_missing_folder_is_a_disk_error(tmp_path: Path) -> None:
    metrics = BatchMetrics(tmp_path / "absent" / "stamp.prom", version="1", bundle_sha256="x")
    with pytest.raises(DiskError):
        metrics.write()
