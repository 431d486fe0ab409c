"""Who holds a claim: the name of this host, and whether a process still is the one that it was."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_started(pid: int) -> str:
    """The kernel's start time of a process, so that a reused pid is not mistaken for the holder."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""The kernel's fixed inode number of the PID namespace outside all containers (include/linux/proc_ns.h)."""


def host_name() -> str:
    """A name for the processes that can see each other: host, boot, and container where there is one.

    Whether a holder is alive is asked of /proc, which shows one PID namespace only; containers that share
    a host name (as with host networking) must not judge each other's claims so, but by their age.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        boot, namespace = "unknown", _FIRST_PID_NAMESPACE
    container = "" if namespace == _FIRST_PID_NAMESPACE else f".{namespace:x}"
    return f"{socket.gethostname()}.{boot}{container}"
