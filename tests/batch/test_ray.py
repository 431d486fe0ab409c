"""A batch on a real, local Ray cluster of several nodes, one of which is killed half-way."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.atomic import is_done
from stamp_deploy.batch.records.claims import Claims
from stamp_deploy.batch.records.ledger import Ledger
from stamp_deploy.batch.work_queue import Board
from stamp_deploy.batch.workers.ray import RayExecutor, RaySetup
from stamp_deploy.batch.workers.tasks import Outcome, Task

ray = pytest.importorskip("ray", reason="Ray is not installed; pip install 'stamp-deploy[ray]'")

FAKE = (sys.executable, str(Path(__file__).parents[1] / "support" / "fake_worker.py"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores and two worker nodes of one core each."""
    from ray.cluster_utils import Cluster

    root = str(Path(__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", root)
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    try:
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        made.nodes_to_lose = [made.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray gives its own nodes 30 s to start, and this machine is too busy for that")
    ray.init(address=made.address, log_to_driver=False)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


class Hearing:
    """Passes outcomes to the board and kills a node after the third."""

    def __init__(self, board: Board, cluster: Any) -> None:
        self.board = board
        self.cluster = cluster
        self.outcomes: list[Outcome] = []
        self.restarts: list[str] = []
        self.killed_after = -1

    def outcome(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.board.outcome(outcome)

    def progress(self, key: str, done: int, total: int) -> None:
        if self.killed_after < 0 and sum(o.state == "done" for o in self.outcomes) >= 3:
            self.killed_after = len(self.outcomes)
            self.cluster.remove_node(self.cluster.nodes_to_lose[0], allow_graceful=False)

    def restarted(self, cause: str) -> None:
        self.restarts.append(cause)


def test_batch_survives_the_loss_of_a_node(tmp_path: Path, cluster: Any) -> None:
    state = tmp_path / "out" / ".stamp"
    claims, ledger = Claims(state / "claims"), Ledger(state, "driver")
    board = Board(claims, ledger)
    tasks = []
    for i in range(14):
        slide = tmp_path / f"s{i}.txt"
        slide.write_text("at score crash" if i == 5 else "at score sleep 0.4")
        tasks.append(Task(f"s{i}", slide, tmp_path / "out" / f"s{i}"))
        board.add(tasks[-1])
    hearing = Hearing(board, cluster)
    executor = RayExecutor(RaySetup({}, str(state), actors=2, command=FAKE))
    started = time.monotonic()
    executor.run(board, hearing)
    claims.close()
    assert hearing.killed_after >= 3, "the node was never killed"
    assert "node-lost" in hearing.restarts
    states = {key: settled.state for key, settled in board.settled.items()}
    assert states == {task.key: "quarantined" if task.key == "s5" else "done" for task in tasks}
    assert all(is_done(task.out) for task in tasks if task.key != "s5")
    lost = [outcome.key for outcome in hearing.outcomes if outcome.state == "interrupted"]
    assert lost, "the killed node had slides in work"
    assert time.monotonic() - started < 120
