"""A disk that fills up at any point of a write: nothing half-written, and the shell sees exit code 6.

HDF5's library would crash at the end of the process after a write that failed, with its own signal as the exit code.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stamp_deploy.writers import formats
from stamp_deploy.writers.hdf5_file import _Disk, hdf5_file

FORMATS = ("hdf5", "anndata", "json", "parquet", "geojson", "ome-tiff", "heatmaps")
HDF5 = ("hdf5", "anndata")
WRITE = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[3].split(":")
from support.result_factory import make_result
from stamp_deploy.config import InferOptions
from stamp_deploy.errors import DiskError
from stamp_deploy.infer import write
name, folder = sys.argv[1], Path(sys.argv[2])
result, options, code = make_result(n_tiles=1500), InferOptions(writers=(name,), overwrite=True), 0
for kilobytes in map(int, sys.argv[4:]):
    size = resource.RLIM_INFINITY if kilobytes == 0 else kilobytes << 10
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        write(result, folder / "out", options)
    except DiskError as error:
        code = int(error.exit_code)
        print(error, file=sys.stderr)
        assert list(folder.iterdir()) == []
sys.exit(code)
"""


def write(name: str, folder: Path, *limits: int) -> subprocess.CompletedProcess[str]:
    """Write a result in a process that may make no file larger than so many KiB, for each limit."""
    pytest.importorskip({"anndata": "anndata"}.get(name, "h5py"))
    tests = str(Path(__file__).resolve().parent.parent)
    words = [sys.executable, "-c", WRITE, name, str(folder), ":".join([tests, *sys.path]), *map(str, limits)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("name", HDF5)
def test_the_code_is_6_wherever_the_disk_ends(name: str, tmp_path: Path) -> None:
    whole = write(name, tmp_path, 0)
    assert (whole.returncode, whole.stderr) == (0, "")
    file = tmp_path / "out" / formats.FORMATS[name].files
    most = file.stat().st_size >> 10
    for path in sorted((tmp_path / "out").iterdir()):
        path.unlink()
    (tmp_path / "out").rmdir()
    limits = [1, *range(2, most, max(1, most // 12)), most - 1]
    done = write(name, tmp_path, *limits)
    assert done.returncode == 6, done
    assert len(done.stderr.splitlines()) == len(limits)
    assert all("cannot write the output: File too large" in line for line in done.stderr.splitlines())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB, which root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    system = ctypes.CDLL(None, use_errno=True)
    if not hasattr(system, "mount") or system.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", 0, b"size=256k") != 0:
        pytest.skip("a small file system cannot be mounted here: that needs root")
    yield disk
    system.umount2(os.fsencode(disk), 2)


@pytest.mark.parametrize("name", FORMATS)
def test_a_disk_without_space(name: str, tiny_disk: Path) -> None:
    (tiny_disk / "ballast").write_bytes(bytes(250 << 10))
    code = WRITE.replace("assert list(folder.iterdir()) == []", "assert len(list(folder.iterdir())) == 1")
    tests = str(Path(__file__).resolve().parent.parent)
    words = [sys.executable, "-c", code, name, str(tiny_disk), ":".join([tests, *sys.path]), "0"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 6, done
    assert done.stderr.splitlines() == [
        "out: cannot write the output: No space left on device - free space on that disk, check its permissions, "
        "or name another output with -o"
    ]


def test_the_file_is_read_as_hdf5_reads_its_own(tmp_path: Path) -> None:
    import h5py
    import numpy as np

    data = np.random.default_rng(0).normal(size=(300, 70))
    for name in ("ours.h5", "theirs.h5"):
        with hdf5_file(tmp_path / name) if name == "ours.h5" else h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("a", data=data, chunks=True, compression="gzip")
            file["b"] = data[:3]
            file["a"].attrs["text"] = "x" * 1000
            del file["b"]
            file["c"] = file["a"][:5]
    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(tmp_path / "theirs.h5") as theirs:
        assert sorted(ours) == sorted(theirs) == ["a", "c"]
        assert np.array_equal(ours["a"][()], data) and np.array_equal(ours["c"][()], data[:5])
        assert dict(ours["a"].attrs) == dict(theirs["a"].attrs)
    sizes = [(tmp_path / name).stat().st_size for name in ("ours.h5", "theirs.h5")]
    assert abs(sizes[0] - sizes[1]) < 10_000


class Refusing(io.FileIO):
    """A file that takes `room` bytes and no more: a write may end in the middle."""

    room = 20

    def write(self, data: Any) -> int:
        taken = min(len(data), self.room - self.tell())
        if taken <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(bytes(data)[:taken])


def test_after_a_write_that_failed_the_library_still_finds_what_it_wrote(tmp_path: Path) -> None:
    """What it reads back must be what it wrote, where it wrote it: else it stops with an error of its own."""
    disk = _Disk(tmp_path / "a.h5")
    disk._file.close()
    disk._file = Refusing(tmp_path / "a.h5", "w+")  # type: ignore[assignment]
    whole = bytes(range(64))
    for start in range(0, 64, 16):
        disk.seek(start)
        assert disk.write(whole[start : start + 16]) == 16
    assert disk.error is not None and disk.error.errno == errno.ENOSPC
    assert disk.tell() == 64
    disk.seek(0)
    assert disk.read() == whole
    disk.seek(10)
    found = bytearray(30)
    assert disk.readinto(found) == 30 and bytes(found) == whole[10:40]
    assert (tmp_path / "a.h5").read_bytes() == whole[:20]


def test_an_error_of_the_writer_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hdf5_file(tmp_path / "a.h5") as file:
        file["none"]
