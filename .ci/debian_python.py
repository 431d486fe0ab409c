"""A Python that this machine does not have, out of Debian testing: a system in a folder, entered by chroot.

It needs root, mmdebstrap (Debian package mmdebstrap) and a Debian mirror that answers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "python{0}", "python{0}-venv", "python{0}-dev", "gcc", "libc6-dev", "libjpeg-dev", "libvips-dev", "pkg-config",
    "ca-certificates",
)  # fmt: skip
FROM_HERE = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
"""How this machine reaches package indexes."""
LIMIT_S = 900
_ENTER = """
mount --bind /proc "$1/proc" && mount --rbind /dev "$1/dev" || exit 125
[ -z "$2" ] || { mkdir -p "$1/data" && mount --bind "$2" "$1/data"; } || exit 125
root=$1; shift 2
exec chroot "$root" "$@"
"""


def why_not() -> str:
    """Why none can be made here; "" where it may be tried."""
    if os.geteuid() != 0:
        return "root is needed to make one of Debian testing"
    lacking = [name for name in ("mmdebstrap", "unshare", "chroot") if shutil.which(name) is None]
    return f"no {lacking[0]} to make one of Debian testing" if lacking else ""


def make_root(version: str, place: Path) -> bool:
    """Unpack Debian testing with this Python into `place`; False where it has none, or cannot be reached."""
    words = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES).format(version)}"]
    words += ["--aptopt=Acquire::Check-Valid-Until false", "testing", str(place), MIRROR]  # mirrors lag behind
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    for name in FROM_HERE if done.returncode == 0 else ():
        if Path(name).is_file():
            (place / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, place / name[1:])
    return done.returncode == 0


def inside(root: Path, data: Path, *command: str) -> list[str]:
    """The words that run a command there, with `data` at /data; what is mounted for it goes with the command."""
    shared = str(data) if data.is_dir() else ""
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", str(root), shared, *command]
