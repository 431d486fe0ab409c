"""A batch's folder as a crash, a full disk or a hand may leave it: the next run repairs it or says what is wrong."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from ..attempt import Attempt
from ..world import World, new_slide

SHARE = 0.06
GARBAGE = (
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"a": 1}',
    b"\x00" * 200,
    b"\xff\xfe",
    b"9" * 5000,
    b"\n\n",
    b'{"pid": -1, "time": 1e400}',
)
Change = Callable[[Path, random.Random], None]


def options(world: World, source: Path, out: Path) -> tuple[str, ...]:
    """Arguments of a batch."""
    writers = ("--write", "json,hdf5", "--engine", "onnxruntime")
    return ("batch", str(source), "--bundle", str(world.bundle), "-o", str(out), *writers)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _results(out: Path) -> list[Path]:
    return [path for path in out.iterdir() if (path / "DONE").is_file()]


def _state_file(out: Path, choose: random.Random) -> None:
    path = choose.choice(_files(out / ".stamp"))
    path.write_bytes(choose.choice(GARBAGE))


def _state_cut(out: Path, choose: random.Random) -> None:
    path = choose.choice(_files(out / ".stamp"))
    data = path.read_bytes()
    path.write_bytes(data[: choose.randrange(len(data) + 1)])


def _state_gone(out: Path, choose: random.Random) -> None:
    path = choose.choice([p for p in (out / ".stamp").rglob("*")])
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _folder_for_file(out: Path, choose: random.Random) -> None:
    path = choose.choice(_files(out / ".stamp"))
    path.unlink()
    path.mkdir()


def _claims(out: Path, choose: random.Random) -> None:
    """Claims of nobody: garbage, folders, of the future, under each name that a slide's claim may have."""
    claims = out / ".stamp" / "claims"
    claims.mkdir(exist_ok=True)
    for result in _results(out):
        for name in (result.name, f"{result.name}.json", f"{result.name}.claim"):
            path = claims / name
            if choose.random() < 0.3:
                path.mkdir(exist_ok=True)
            else:
                path.write_bytes(choose.choice(GARBAGE))
                os.utime(path, (2e10, 2e10)) if choose.random() < 0.3 else None
        (result / "DONE").unlink() if choose.random() < 0.5 else None


def _result_file(out: Path, choose: random.Random) -> None:
    path = choose.choice(_files(choose.choice(_results(out))))
    if choose.random() < 0.5:
        path.unlink()
    else:
        path.write_bytes(choose.choice(GARBAGE))


def _leftovers(out: Path, choose: random.Random) -> None:
    for name in (".partial-1-x", ".partial-", "notes.txt", ".nfs0001"):
        (out / name).mkdir() if choose.random() < 0.5 else (out / name).write_bytes(b"x")


CHANGES: dict[str, Change] = {
    "a file of the state": _state_file,
    "a file of the state cut": _state_cut,
    "a file of the state gone": _state_gone,
    "a folder for a file": _folder_for_file,
    "claims": _claims,
    "a file of a result": _result_file,
    "leftovers": _leftovers,
}


def make(choose: random.Random, folder: Path, world: World) -> Attempt:
    what = choose.choice(list(CHANGES))
    source = new_slide(folder, "one.svs", world.slides["420"]).parent
    new_slide(folder, "two.svs", world.slides["rgb"])
    out = folder / "batch"
    shutil.copytree(finished(world), out)
    CHANGES[what](out, choose)
    if choose.random() < 0.2:
        return Attempt(what, ("audit", str(out), "--results"), codes=frozenset({0, 2, 4}), one_line=False)
    return Attempt(
        what,
        options(world, source, out),
        codes=frozenset({0, 2, 3, 4, 6, 75}),  # 3, 4: a slide whose folder holds strange files is left alone
        one_line=False,
        right=lambda: all_whole(out, 2, bytes_too=what != "a file of a result"),
    )


def finished(world: World) -> Path:
    """The output of a finished batch of the two slides; made once."""
    if not (world.batch / "batch.json").exists():
        raise FileNotFoundError("make_finished() comes first")
    return world.batch


def all_whole(out: Path, count: int, *, bytes_too: bool) -> str:
    """Whether a batch's folder holds `count` whole results and nothing half-written.

    A batch looks for the files of a finished result, not at their bytes: those are for `verify` and `audit --results`.
    """
    from stamp_deploy.atomic import why_not_whole
    from stamp_deploy.checks.verify import verify_path
    from stamp_deploy.errors import StampError

    results = _results(out)
    if len(results) != count:
        return f"{len(results)} of {count} results are there"
    try:
        for result in results:
            if wrong := why_not_whole(result):
                return wrong
            if bytes_too:
                verify_path(result)
    except StampError as error:
        return str(error)
    return ""
