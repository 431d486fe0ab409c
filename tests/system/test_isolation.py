"""`infer` outlives its libraries: crashes, hangs, swallowed signals and late faults end in a clear error and a code.

Each test runs the real command in a process of its own, with one function replaced by one that misbehaves once, at a
chosen point, so that nothing depends on timing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle_factory import make_bundle
from support.slide_factory import texture, write_slide

NAME = "Mustermann"
NOT_JUDGED = (
    "warning whether the slide is like what the model knows was not judged: the bundle has no reference of what "
    "its model knows\n"
)
PREPARE = "import stamp_deploy.prepare as at; name = 'open_slide'"
ENGINE = "import stamp_deploy.infer as at; name = 'load_engine'"
WRITE = "import stamp_deploy.infer as at; name = 'write_all'"
MISBEHAVING = """
import os, signal, sys, time
from stamp_deploy import cli
from stamp_deploy.system import isolation
{before}
def run(real=cli.run, **how):
    {where}
    work = getattr(at, name)
    def misbehave(*args, **more):
        setattr(at, name, work)  # once: the function may be called for each part of the work
        {fault}
        return work(*args, **more)
    setattr(at, name, misbehave)
    return real(**how)
cli.run = run
cli.main()
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and a slide."""
    folder = tmp_path_factory.mktemp("inputs")
    make_bundle(folder / "bundle", tile_px=64)
    write_slide(folder / "slide.svs", texture(512, 512))
    return folder


def infer(
    inputs: Path, out: Path, where: str, fault: str, *more: str, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `infer` with a fault planted at a place."""
    code = MISBEHAVING.format(before=before, where=where, fault=fault)
    words = ["infer", inputs / "slide.svs", "--bundle", inputs / "bundle", "-o", out / "result", "--write", "json,hdf5"]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--engine", "onnxruntime", *more],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def test_without_a_fault_it_works(inputs: Path, tmp_path: Path) -> None:
    done = infer(inputs, tmp_path, WRITE, "pass")
    assert (done.returncode, done.stderr) == (0, NOT_JUDGED)
    assert done.stdout.startswith("slide   slide.svs")
    assert (tmp_path / "result" / "DONE").is_file()


@pytest.mark.parametrize("number", ["SIGABRT", "SIGSEGV", "SIGKILL"])
@pytest.mark.parametrize(("where", "stage"), [(PREPARE, "loading the bundle"), (WRITE, "writing the result")])
def test_a_crash_is_an_error(inputs: Path, tmp_path: Path, where: str, stage: str, number: str) -> None:
    fault = f"os.kill(os.getpid(), signal.{number}); time.sleep(60)"
    if where == PREPARE:
        fault, stage = f"isolation.note(slide='/x/slide.svs', stage='opening the slide'); {fault}", "opening the slide"
    done = infer(inputs, tmp_path, where, fault)
    assert done.returncode == 4
    assert done.stderr.startswith(f"stamp-deploy: slide.svs: the process was ended by {number}")
    assert f"while {stage}" in done.stderr
    assert "try another --engine" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_crash_with_a_bundle_in_hand_is_the_bundles(inputs: Path, tmp_path: Path) -> None:
    done = infer(inputs, tmp_path, "import stamp_deploy.bundle.load as at; name = '_check_models'", "os.abort()")
    assert done.returncode == 5
    assert done.stderr.startswith("stamp-deploy: bundle: the process was ended by SIGABRT while loading the bundle")


@pytest.mark.parametrize("receiver", ["os.getpid()", "os.getppid()"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("where", [ENGINE, WRITE])
def test_a_swallowed_signal_still_stops(inputs: Path, tmp_path: Path, where: str, number: str, receiver: str) -> None:
    """As an import or a callback may swallow it (seen on Python 3.13): nothing is published, the code is 130."""
    swallow = f"""
        try:
            os.kill({receiver}, signal.{number})
            time.sleep(60)
        except KeyboardInterrupt:
            pass"""
    done = infer(inputs, tmp_path, where, swallow)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "stamp-deploy: stopped; nothing was left half-written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", ["TypeError('argument 1')", "SlideError('cannot be opened')"])
def test_a_signal_that_a_library_turns_into_another_error_still_stops(inputs: Path, tmp_path: Path, error: str) -> None:
    """As ctypes does when the signal comes while it converts an argument."""
    hide = f"""
        from stamp_deploy.errors import SlideError
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
        raise {error}"""
    done = infer(inputs, tmp_path, PREPARE, hide)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "stamp-deploy: stopped; nothing was left half-written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_that_comes_before_any_work_stops(inputs: Path, tmp_path: Path, number: str) -> None:
    """It waits while signals are blocked for the fork, and is delivered before the command could take it."""
    early = (
        "real = isolation.die_with_parent\n"
        f"isolation.die_with_parent = lambda parent: (real(parent), os.kill(os.getpid(), signal.{number}))"
    )
    done = infer(inputs, tmp_path, WRITE, "pass", before=early)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "stamp-deploy: stopped; nothing was left half-written\n"
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_cannot_stop_is_killed(inputs: Path, tmp_path: Path) -> None:
    """As in a decoder or a destructor that never comes back."""
    hang = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(600)"
    done = infer(inputs, tmp_path, WRITE, hang, before="isolation.STOP_GRACE_S = 0.5")
    assert done.returncode == 130
    assert done.stderr.strip() == "stamp-deploy: stopped; nothing was left half-written"
    assert list(tmp_path.iterdir()) == []


def test_the_time_limit_holds_while_a_reader_hangs(inputs: Path, tmp_path: Path) -> None:
    done = infer(inputs, tmp_path, PREPARE, "time.sleep(600)", "--time-limit", "0.5")
    assert done.returncode == 4
    assert "took longer than the time limit allows" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_code_outlives_a_crash_at_exit(inputs: Path, tmp_path: Path) -> None:
    """As that of HDF5's library after a full disk."""
    crash = "import atexit; atexit.register(os.abort)"
    done = infer(inputs, tmp_path, WRITE, crash)
    assert (done.returncode, done.stderr) == (0, NOT_JUDGED)
    full = f"{crash}; import errno; raise OSError(errno.ENOSPC, 'No space left on device')"
    done = infer(inputs, tmp_path / "other", WRITE, full)
    assert done.returncode == 6
    assert "cannot write the output: No space left on device" in done.stderr
    assert list((tmp_path / "other").iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [
        f"os.write(2, b'{NAME}'); os.write(1, b'{NAME}')",
        f"import warnings; warnings.warn('{NAME}')",
        f"import logging; logging.getLogger('tifffile').warning('{NAME}')",
        f"import logging; l = logging.getLogger('pydicom.x'); l.addHandler(logging.StreamHandler()); l.error('{NAME}')",
    ],
)
def test_libraries_are_not_heard(inputs: Path, tmp_path: Path, fault: str) -> None:
    done = infer(inputs, tmp_path, WRITE, fault)
    assert done.returncode == 0
    assert NAME not in done.stdout + done.stderr


def test_an_unforeseen_error_is_told_without_its_words(inputs: Path, tmp_path: Path) -> None:
    fault = f"raise ValueError(chr(77) + '{NAME[1:]}') from KeyError('PatientBirthDate 19' + '70')"
    done = infer(inputs, tmp_path, WRITE, fault)
    assert done.returncode == 1
    assert "please report" in done.stderr
    assert "ValueError (message left out: it may quote a file)" in done.stderr
    assert "in misbehave" in done.stderr
    assert NAME not in done.stderr and "1970" not in done.stderr
    assert list(tmp_path.iterdir()) == []
