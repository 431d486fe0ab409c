"""torch computes with the threads that are asked for, and by itself with no more than the process may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stamp_deploy.training import torch_threads


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("torchs", "usable", "wanted", "expected"),
    [(4, 2, 0, 2), (2, 4, 0, 2), (2, 2, 0, 2), (4, 2, 3, 3), (1, 8, 3, 3)],
)
def test_threads_of_torch(
    monkeypatch: pytest.MonkeyPatch, torchs: int, usable: int, wanted: int, expected: int
) -> None:
    monkeypatch.setattr(torch_threads, "usable_cores", lambda: usable)
    torch.set_num_threads(torchs)
    torch_threads.set_torch_threads(wanted)
    assert torch.get_num_threads() == expected
