"""Whether files of a folder can be locked: NFS without its lock service, and some FUSE mounts, have no locks."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path


def locks_work(folder: Path) -> bool:
    """Whether a fresh file of the folder can be locked; True where it cannot even be made, which others then say."""
    probe = folder / f".locks-{uuid.uuid4().hex}"
    try:
        handle = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return True
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # nobody else knows the file: whatever the reason, it is not that another holds it
        return False
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)
