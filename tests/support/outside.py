"""Run a command and record what it says to anybody and where it writes: contacts, look-ups, files.

``strace`` sees every system call, of native libraries and child processes too. Where it is not permitted, an empty
network namespace with a resolver of our own records the names that are looked up (see `outside_resolver.py`).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RESOLVER = Path(__file__).with_name("outside_resolver.py")
_INTERNET = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*\bsa_family=AF_INET6?\b")
_RESOLVED = re.compile(r'\bconnect\(.*sun_path="[^"]*(?:systemd\.[Rr]esolve|io\.systemd\.Resolve)')
_WRITES = re.compile(r'\b(?:openat\([^,]*, |mkdir\(|mkdirat\([^,]*, )"([^"]*)"(.*)$')
_RETURNED = re.compile(r"= (-?\d+)")


@dataclass(frozen=True)
class Watched:
    """What a command did.

    Attributes
    ----------
    contacts : list of str
        Connections, datagrams and look-ups, as strace or the resolver put them.
    written : list of str
        Files and folders opened for writing or made; empty in a namespace, where they are not seen.
    home : list of str
        Everything below its (at first empty) home folder, relative.
    """

    code: int
    out: str
    err: str
    contacts: list[str]
    written: list[str]
    home: list[str]


@functools.cache
def ways() -> dict[str, str]:
    """The ways to watch that this machine permits ("strace", "namespace"), and why the others do not: way -> ""/why."""
    found = {}
    for way, command in (("strace", _strace(Path(os.devnull))), ("namespace", _namespace(Path(os.devnull)))):
        if shutil.which(command[0]) is None:
            found[way] = f"{command[0]} is not installed"
            continue
        tried = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, text=True, check=False)
        found[way] = "" if tried.returncode == 0 else f"not permitted here: {tried.stderr.strip()[-200:]}"
    return found


def best_way() -> str | None:
    """ "strace", else "namespace", else None."""
    return next((way for way, why in ways().items() if not why), None)


def watch(
    command: Sequence[object],
    folder: Path,
    *,
    way: str | None = None,
    cwd: Path | None = None,
    timeout_s: float = 240,
    **environment: str,
) -> Watched:
    """Run `command` with an empty home below `folder` and only the environment that it needs.

    CI variables are left out: some libraries keep quiet only there.
    """
    way = way or best_way()
    assert way is not None, f"nothing can watch here: {ways()}"
    folder.mkdir(parents=True, exist_ok=True)
    home, record = folder / "home", folder / "record"
    for path in (home, folder / "tmp"):
        path.mkdir(exist_ok=True)
    clean = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(folder / "tmp"),
        "STAMP_CACHE_DIR": str(folder / "cache"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **environment,
    }
    watcher = _strace(record) if way == "strace" else _namespace(record)
    done = subprocess.run(
        [*watcher, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=clean,
        cwd=cwd,
    )
    lines = record.read_text(errors="replace").splitlines() if record.exists() else []
    contacts = lines if way == "namespace" else [line for line in lines if _is_contact(line)]
    written = [] if way == "namespace" else sorted({path for line in lines if (path := _written(line))})
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return Watched(done.returncode, done.stdout, done.stderr, contacts, written, left)


def _strace(record: Path) -> list[str]:
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e", "trace=%network,openat,mkdir,mkdirat",
            "-o", str(record)]  # fmt: skip


def _namespace(record: Path) -> list[str]:
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *rights, "--net", "--mount", sys.executable, str(RESOLVER), str(record)]


def _is_contact(line: str) -> bool:
    return bool(_INTERNET.search(line) or _RESOLVED.search(line))


def _written(line: str) -> str:
    """The path that a system call opened for writing or made; empty for all others."""
    found = _WRITES.search(line)
    if found is None or (result := _RETURNED.search(found[2])) is None or int(result[1]) < 0:
        return ""
    opened = "openat(" in line
    if opened and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", found[2]):
        return ""
    return "" if found[1].startswith(("/dev/", "/proc/")) else found[1]
