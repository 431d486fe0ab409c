"""Decoding in a child process: a decoder that crashes takes a region with it, not the run.

JPEG 2000 goes this way: the decoder that readers share has open faults that a crafted file can use. The child is
started when it is first needed, is started again after it died, and can hold no more than `MEMORY_BYTES`. Parent and
child talk over pipes: a line of JSON with the request, a line of JSON with the answer, then the pixels.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import SlideError
from ..dicom import JPEG_2000, volume_instances
from ..tiff_pages import tiff_pages

MEMORY_BYTES = 4 << 30
TIMEOUT_S = 120.0
JPEG_2000_TIFF = (33003, 33004, 33005, 34712)


def holds_jpeg_2000(path: Path, vendor: str) -> bool:
    """Whether a slide's tiles are coded as JPEG 2000, as far as its file says, or may be for all that it says."""
    if vendor == "dicom":
        instances = volume_instances(path)
        return not instances or any(instance.transfer_syntax in JPEG_2000 for instance in instances)
    try:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            return any(int(getattr(page, "compression", 0)) in JPEG_2000_TIFF for page in tiff_pages(tiff))
    except Exception:
        return False  # not a TIFF that tifffile reads, and so not one of these


class ChildReader:
    """Regions read by OpenSlide in a child process.

    `read` is as Backend.read but gives RGBA as OpenSlide does, uint8 [h, w, 4]. One thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, level: int, x: int, y: int, w: int, h: int) -> NDArray[np.uint8]:
        process = self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps({"level": level, "x": x, "y": y, "w": w, "h": h}).encode() + b"\n")
            process.stdin.flush()
            end = time.monotonic() + TIMEOUT_S
            answer = json.loads(_line(process.stdout, end))
            if "error" in answer:
                raise self._unreadable(level, x, y, str(answer["error"]))
            pixels = np.frombuffer(_exactly(process.stdout, w * h * 4, end), np.uint8)
        except (BrokenPipeError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            why = "took too long" if isinstance(error, TimeoutError) else "ended before it answered"
            raise self._unreadable(level, x, y, f"its decoder {why}") from error
        return pixels.reshape(h, w, 4)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _unreadable(self, level: int, x: int, y: int, why: str) -> SlideError:
        return SlideError(
            f"cannot be decoded at ({x}, {y}) of level {level}: {why}",
            path=self._path,
            remedy="copy or scan the slide again",
        )


def _wait(pipe: IO[bytes], end: float) -> None:
    if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
        raise TimeoutError


def _exactly(pipe: IO[bytes], count: int, end: float) -> bytearray:
    """`count` bytes of a pipe that nothing else has buffered."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        _wait(pipe, end)
        got = os.readv(pipe.fileno(), [view[done : done + (1 << 20)]])
        if got == 0:
            raise EOFError
        done += got
    return data


def _line(pipe: IO[bytes], end: float) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _exactly(pipe, 1, end)
        if len(line) > 10_000:
            raise ValueError("the answer has no end")
    return bytes(line)


def serve(path: Path, requests: IO[bytes], answers: IO[bytes]) -> None:
    """The child: answer requests until there are none. Its errors go back as text; anything worse ends it."""
    import openslide

    slide: Any = None
    for line in requests:
        wanted = json.loads(line)
        try:
            if slide is None:
                slide = openslide.OpenSlide(path)
            region = slide.read_region((wanted["x"], wanted["y"]), wanted["level"], (wanted["w"], wanted["h"]))
            answers.write(b"{}\n" + region.tobytes())
        except openslide.OpenSlideError as error:
            if slide is not None:
                slide.close()
            slide = None  # its errors latch
            text = str(error).replace(str(path), path.name).replace(str(path.parent), "")
            answers.write(json.dumps({"error": text}).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
