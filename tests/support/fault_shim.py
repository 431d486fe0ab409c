"""Runs Python under fault_shim.c: the calls of the file system below a folder are counted, told, and made to fail.

As a module of the child it steers the shim; as a module of the test it builds it and starts the child.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@cache
def shim() -> Path:
    """The shim, compiled; the test is skipped where there is no C compiler or the libraries are not glibc's."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("no C compiler here, which is needed to make the calls of the file system fail")
    built = Path(tempfile.mkdtemp()) / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(HERE / "fault_shim.c"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the shim cannot be compiled here: {done.stderr[:200]}")
    return built


def environment(**more: str) -> dict[str, str]:
    """The environment of a child under the shim."""
    paths = os.pathsep.join((str(HERE.parent), str(HERE.parents[1])))
    return {**os.environ, "LD_PRELOAD": str(shim()), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def in_child(module: str, function: str, *arguments: object) -> Any:
    """What a function of a module answers, as JSON, in a child under the shim."""
    code = "import importlib, json, sys; m, f, *a = json.loads(sys.argv[1]);"
    code += "print('\\n' + json.dumps(getattr(importlib.import_module(m), f)(*a)))"
    call = json.dumps([module, function, *arguments], default=str)
    done = subprocess.run(
        [sys.executable, "-c", code, call], capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert done.returncode == 0, f"the child ended with {done.returncode}: {done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


# In the child.


@contextmanager
def armed(folder: Path, nth: int = 0, error: int = 0, *, short: bool = False) -> Iterator[list[tuple[str, str, str]]]:
    """Below `folder`, the nth call fails (none for 0); yields a list that is filled with all calls at the end.

    With `short`, that call writes half of its bytes instead, and writes after it fail with `error`, if there is one.
    """
    library = ctypes.CDLL(None)
    calls: list[tuple[str, str, str]] = []
    with tempfile.TemporaryFile() as log:
        library.shim_arm(os.fsencode(folder), ctypes.c_long(nth), error, log.fileno(), int(short))
        try:
            yield calls
        finally:
            library.shim_disarm()
            log.seek(0)
            for line in log.read().decode().splitlines():
                call, path, to = line.split("\t")
                calls.append((call, path, to))
