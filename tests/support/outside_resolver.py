"""In a fresh network and mount namespace: record every name that a command looks up, and where it then connects.

    unshare --net --mount python outside_resolver.py RECORD COMMAND...

The loopback device is brought up, /etc/resolv.conf is hidden by one that names a resolver on it, every name is answered
with 127.0.0.1, and ports 80 and 443 there record who comes. Nothing else can be reached.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def answer(query: bytes) -> tuple[str, bytes]:
    """(name, DNS answer that says 127.0.0.1, or no address for questions of other kinds) to one query."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    question = query[12 : at + 5]
    is_a = question[-4:-2] == b"\0\1"
    head = query[:2] + struct.pack(">5H", 0x8180, 1, int(is_a), 0, 0)
    address = b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1") if is_a else b""
    return ".".join(labels), head + question + address


def main() -> int:
    record, command = sys.argv[1], sys.argv[2:]
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    fcntl.ioctl(resolver, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write("nameserver 127.0.0.1\n")
        conf.flush()
        subprocess.run(["mount", "--bind", conf.name, os.path.realpath("/etc/resolv.conf")], check=True)
    resolver.bind(("127.0.0.1", 53))
    log = open(record, "a", buffering=1)  # noqa: SIM115 - open until the process ends

    def resolve() -> None:
        while True:
            query, sender = resolver.recvfrom(4096)
            name, reply = answer(query)
            print(f"look-up of {name}", file=log)
            resolver.sendto(reply, sender)

    def listen(port: int) -> None:
        server = socket.create_server(("127.0.0.1", port))
        while True:
            server.accept()[0].close()
            print(f"connection to port {port}", file=log)

    threading.Thread(target=resolve, daemon=True).start()
    for port in (80, 443):
        threading.Thread(target=listen, args=(port,), daemon=True).start()
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
