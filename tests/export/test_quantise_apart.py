"""The outlier twin's file is made in another process where that is worth it, and here where that process fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stamp_deploy.export import quantise_apart
from stamp_deploy.export.quantise_apart import made_apart, worthwhile
from stamp_deploy.export.quantise_ways import WAYS, Way

TILES = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8)
DYNAMIC = next(way for way in WAYS if way.name == "dynamic")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """One product with weights, which `dynamic` quantises in a moment."""
    weights = numpy_helper.from_array(np.random.default_rng(1).normal(size=(192, 16)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Cast", ["tiles"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", 8, 8, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 16])],
        [weights],
    )  # fmt: skip
    path = tmp_path / "encoder.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def refuses(encoder: Path, target: Path, tiles: NDArray[np.uint8]) -> None:
    raise AssertionError("it is made in this process")


def test_the_file_is_that_of_this_process(encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    here, apart = tmp_path / "here.onnx", tmp_path / "apart" / "twin.onnx"
    with made_apart(replace(DYNAMIC, make=refuses), encoder, apart, TILES):
        DYNAMIC.make(encoder, here, TILES)
    assert apart.read_bytes() == here.read_bytes()
    assert [path.name for path in apart.parent.iterdir()] == ["twin.onnx"]  # and no calibration tiles


def test_what_the_process_cannot_do_is_done_here(encoder: Path, tmp_path: Path) -> None:
    made: list[tuple[Path, Path, int]] = []
    way = Way(
        "no such way", ("onnxruntime",), lambda encoder, target, tiles: made.append((encoder, target, len(tiles)))
    )
    with made_apart(way, encoder, tmp_path / "twin.onnx", TILES):
        assert not made
    assert made == [(encoder, tmp_path / "twin.onnx", 4)]


def test_a_block_that_fails_ends_the_process(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        quantise_apart, "module_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"]
    )
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **settings))  # type: ignore[call-overload]
        return started[0]

    monkeypatch.setattr(quantise_apart.subprocess, "Popen", start)
    with pytest.raises(ValueError, match="the model's own"), made_apart(DYNAMIC, encoder, tmp_path / "t.onnx", TILES):
        raise ValueError("the model's own")
    assert started[0].returncode == -9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder.onnx"]


@pytest.mark.parametrize(
    ("analyses", "size", "cores", "free", "expected"),
    [
        (True, 20 << 20, 2, (800 << 20) + 1, True),
        (False, 20 << 20, 2, 1 << 40, False),
        (True, (20 << 20) - 1, 2, 1 << 40, False),
        (True, 20 << 20, 1, 1 << 40, False),
        (True, 20 << 20, 2, 800 << 20, False),
    ],
)
def test_when_it_is_worth_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, analyses: bool, size: int, cores: int, free: int, expected: bool
) -> None:
    with (tmp_path / "encoder.onnx").open("wb") as file:
        file.truncate(size)
    monkeypatch.setattr(quantise_apart, "usable_cores", lambda: cores)
    monkeypatch.setattr(quantise_apart, "free_bytes", lambda: free)
    assert worthwhile(replace(DYNAMIC, analyses=analyses), tmp_path / "encoder.onnx") == expected


def test_only_the_way_that_takes_long_is_made_apart() -> None:
    assert [way.name for way in WAYS if way.analyses] == ["smooth"]
