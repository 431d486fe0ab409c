"""A pipe, a socket or a device where a file should be is refused at once, whatever argument names it.

Nobody writes to the pipes, and /dev/zero has no end: a reader that opened one would not come back.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.cli_runner import Runner, runner  # noqa: F401

from stamp_deploy.errors import StampError
from stamp_deploy.system.files import special_kind


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    os.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS = {"a named pipe": make_pipe, "a socket": make_socket, "a device": make_device}


@pytest.fixture(params=sorted(KINDS))
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """(kind in words, path)."""
    monkeypatch.chdir(tmp_path)
    KINDS[request.param](tmp_path / "special")
    return request.param, tmp_path / "special"


def test_kinds(special: tuple[str, Path], tmp_path: Path) -> None:
    kind, path = special
    assert special_kind(path) == kind
    assert special_kind(tmp_path) is None
    assert special_kind(tmp_path / "none") is None
    assert special_kind(__file__) is None


def test_the_command(special: tuple[str, Path], tmp_path: Path, runner: Runner) -> None:  # noqa: F811
    kind, path = special
    make_bundle(tmp_path / "bundle", tile_px=64)
    bundle, out = ("--bundle", tmp_path / "bundle"), ("-o", tmp_path / "out")
    (tmp_path / "slide.svs").write_bytes(b"II*\0")
    for words, code in (
        (("infer", path, *bundle, *out), 4),
        (("inspect", path), 4),
        (("infer", tmp_path / "slide.svs", *bundle, *out, "--require-signature", path), 2),
        (("sign", tmp_path / "bundle", "--key", path), 2),
        (("batch", path, *bundle, *out), 4),
    ):
        done = runner(*words)
        assert done.code == code, (words[0], done)
        assert f"is {kind}, not a file" in " ".join((done.out + done.err).split()), (words[0], done)


def test_manifests_and_tables(special: tuple[str, Path]) -> None:
    from stamp_deploy.batch.planning.inputs import read_manifest
    from stamp_deploy.training.config import load_config
    from stamp_deploy.training.gene_sets import read_gmt

    kind, path = special
    readers: tuple[Callable[[Path], object], ...] = (read_manifest, load_config, read_gmt)
    for read in readers:
        with pytest.raises(StampError, match=f"is {kind}"):
            read(path)
