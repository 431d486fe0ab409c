"""The outlier twin's int8 file, made in a process of its own while the model's is made here.

NNCF looks at the graph and at each tensor's statistics in Python, on one core; the twin costs as much as the model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stamp_deploy.system.child_process import module_command
from stamp_deploy.system.memory import free_bytes
from stamp_deploy.system.processor import usable_cores

from .quantise_ways import WAYS, Way

SMALLEST_BYTES = 20 << 20
"""Of an encoder; with a smaller one, starting the process takes longer than it saves."""
MEMORY_PER_BYTE = 40
"""Bytes of free memory per byte of the encoder; two processes took 36 together for a ViT-S of 87 MB."""


def worthwhile(way: Way, encoder: Path) -> bool:
    """Whether to make the twin's file apart: there are cores and memory for two, and the encoder is large enough."""
    size = encoder.stat().st_size
    return way.analyses and size >= SMALLEST_BYTES and usable_cores() > 1 and free_bytes() > MEMORY_PER_BYTE * size


@contextmanager
def made_apart(way: Way, encoder: Path, target: Path, tiles: NDArray[np.uint8]) -> Iterator[None]:
    """Make a file in a process of its own while the block runs; it is there when the block has ended.

    A process that fails, or is killed for its memory, is no error: the file is then made here. One that is still at
    work when the block fails is ended.
    """
    stored = target.with_name("calibration.npy")
    np.save(stored, tiles)
    command = module_command("stamp_deploy.export.quantise_apart", way.name, str(encoder), str(target), str(stored))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        failed = process.wait() != 0
    finally:
        process.kill()
        process.wait()
        stored.unlink()
    if failed:
        way.make(encoder, target, tiles)


def main(name: str, encoder: str, target: str, tiles: str) -> None:
    """What the process does: the way of that name, and the file renamed into its place when it is whole."""
    way = next(way for way in WAYS if way.name == name)
    unfinished = Path(target + ".part")
    way.make(Path(encoder), unfinished, np.load(tiles, allow_pickle=False))
    os.replace(unfinished, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
