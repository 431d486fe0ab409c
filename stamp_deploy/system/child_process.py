"""A helper in a process of its own: requests go to it and answers come back over pipes.

A request is a line of JSON, then the bytes that it names; an answer is a line of JSON, then the bytes that the parent
expects. A helper that crashes, hangs or fills its memory costs the request, not the run: it is started again for the
next one.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

MEMORY_BYTES = 4 << 30
TIMEOUT_S = 120.0
_POLL_S = 0.5
_LONGEST_LINE = 10_000


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module in a process of its own.

    `-P` keeps the folder where the user stands out of what can be imported: a `random.py` there would be taken for the
    standard library's.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


class ChildRefusalError(Exception):
    """The helper answered that it cannot do what was asked, and why."""


class ChildLostError(Exception):
    """The helper crashed, hung or answered nonsense; its message says which."""


class ChildProcess:
    """A helper that is started when it is first asked. One thread at a time.

    Parameters
    ----------
    module : str
        What it runs, as `python -m`.
    *arguments : str
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = module_command(module, *arguments)
        self.process: subprocess.Popen[bytes] | None = None

    def ask(
        self,
        request: Mapping[str, Any],
        payload: bytes,
        answer_bytes: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bytearray:
        """The bytes of the answer.

        Parameters
        ----------
        request : mapping
            JSON values; the length of `payload` is added as "payload".
        payload : bytes
        answer_bytes : int
            How many bytes an answer has that is no refusal.
        stopped : callable
            Asked while waiting; once it says True the helper is ended.

        Raises
        ------
        ChildRefusalError
            The helper says that it cannot.
        ChildLostError
            It ended, or took longer than TIMEOUT_S, or was stopped.
        """
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({**request, "payload": len(payload)}).encode() + b"\n" + payload)
            process.stdin.flush()
            end = time.monotonic() + TIMEOUT_S
            answer = json.loads(_line(process.stdout, end, stopped))
            if "error" in answer:
                raise ChildRefusalError(str(answer["error"]))
            return _exactly(process.stdout, answer_bytes, end, stopped)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            why = "took too long" if isinstance(error, TimeoutError) else "ended before it answered"
            raise ChildLostError(f"its decoder {why}") from error

    def close(self) -> None:
        """End the helper; safe to call twice."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is not None:
            self.close()
        if self.process is None:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self.process


def serve(answer: Callable[[dict[str, Any], bytes], bytes]) -> None:
    """The helper's side: answer requests until there are none.

    It can hold no more than MEMORY_BYTES and leaves no dump of its memory behind.

    Parameters
    ----------
    answer : callable
        Takes a request and its payload, gives the bytes of the answer; a ChildRefusalError goes back as text.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request = json.loads(line)
        payload = requests.read(request.pop("payload"))
        try:
            answers.write(b"{}\n" + answer(request, payload))
        except ChildRefusalError as error:
            answers.write(json.dumps({"error": str(error)[: _LONGEST_LINE // 10]}).encode() + b"\n")
        answers.flush()


def _wait(pipe: IO[bytes], end: float, stopped: Callable[[], bool]) -> None:
    while not stopped():
        left = end - time.monotonic()
        if left <= 0:
            break
        if select.select([pipe], [], [], min(left, _POLL_S))[0]:
            return
    raise TimeoutError


def _exactly(pipe: IO[bytes], count: int, end: float, stopped: Callable[[], bool]) -> bytearray:
    """`count` bytes of a pipe that nothing else has buffered."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        _wait(pipe, end, stopped)
        got = os.readv(pipe.fileno(), [view[done : done + (1 << 20)]])
        if got == 0:
            raise EOFError
        done += got
    return data


def _line(pipe: IO[bytes], end: float, stopped: Callable[[], bool]) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _exactly(pipe, 1, end, stopped)
        if len(line) > _LONGEST_LINE:
            raise ValueError("the answer has no end")
    return bytes(line)
