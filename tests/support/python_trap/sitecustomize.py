"""Put this folder on PYTHONPATH: every Python process, children too, then notes each use of the internet and fails it.

The note goes to the file named by STAMP_TRAP_RECORD, since an exception may be caught, or lost in a child. Native
libraries are not seen: that is what strace is for (see `support/outside.py`).
"""

import os
import socket
import sys


def _refuse(event: str, args: tuple[object, ...]) -> None:
    outside = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
    outside |= event == "socket.__new__" and args[1] not in (-1, int(socket.AF_UNIX))
    outside |= event in ("socket.connect", "socket.sendto", "socket.bind") and isinstance(args[1], tuple)
    outside |= event.startswith(("urllib.", "http.", "ftplib.", "smtplib."))
    if outside:
        with open(os.environ["STAMP_TRAP_RECORD"], "a") as record:
            print(event, args, file=record)
        raise AssertionError(f"{event} {args}")


sys.addaudithook(_refuse)
