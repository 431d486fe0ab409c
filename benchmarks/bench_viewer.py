"""Tiles per second that the viewer serves, and its memory over 10,000 different tiles.

    python benchmarks/bench_viewer.py [--data ../shared/data]

The server is the real command, in processes of its own; six connections ask for tiles as a browser would, from the same
two cores. Slides are made of the JPEG tiles of a real one by make_wsi.py: one level without a pyramid, and the same
pixels with levels at 4 and 16. Each tile is asked for once, so that nothing comes from the cache unless it is said.
Writes benchmarks/results/viewer.json and viewer.md.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from real_slides import DATA, SMALL_REGION, make_slide
from result_files import keep
from support.result_factory import make_result, stored
from support.slide_factory import write_slide

from stamp_deploy.slide import open_slide

CONNECTIONS = 6
"""As browsers open to one host."""
CORES = 2
BAR_TILES_PER_S = 60
SIDES = "100x80"
REPEATS = 3
KINDS = {
    "stored": "storage tiles as they lie in the file",
    "between": "a zoom that the file lacks, a factor of 2 from a level",
    "far": "a zoom that the file lacks, a factor of 8 from its only level",
    "picture": "from the result's picture",
    "cached": "made before",
}


class Server:
    """The command ``view``, running."""

    def __init__(self, out: Path, slides: Path) -> None:
        command = [sys.executable, "-m", "stamp_deploy.cli", "view", str(out), "--slides", str(slides), "--no-browser"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.match(r"view\s+http://127\.0\.0\.1:(\d+)/(\S+)/", line)
        assert found is not None, line
        self.port, self.token = int(found[1]), found[2]

    def memory_mib(self) -> float:
        """Resident memory of the command and its child, MiB."""
        pids = [self._process.pid]
        for pid in pids:
            with contextlib.suppress(OSError):
                pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def get(self, connection: HTTPConnection, path: str) -> bytes:
        connection.request("GET", f"/{self.token}/{path}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (answer.status, path)
        return body

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=120)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def serving(out: Path, slides: Path) -> Iterator[Server]:
    server = Server(out, slides)
    try:
        yield server
    finally:
        server.stop()


def fetch(server: Server, paths: Sequence[str]) -> float:
    """Seconds that `CONNECTIONS` connections need for all paths."""
    rest, lock = iter(paths), threading.Lock()

    def work() -> None:
        connection = server.connect()
        while True:
            with lock:
                path = next(rest, None)
            if path is None:
                return
            server.get(connection, path)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def levels_of(server: Server, key: str) -> list[dict[str, Any]]:
    """The zoom levels of a slide, once it is known to be the scored one."""
    connection = server.connect()
    while (found := json.loads(server.get(connection, f"api/slides/{key}/source")))["state"] == "checking":
        time.sleep(0.2)
    assert found["state"] == "scored", found
    levels: list[dict[str, Any]] = found["levels"]
    return levels


def tiles_of(key: str, levels: list[dict[str, Any]], downsample: int) -> list[str]:
    """The addresses of all tiles of the level of a downsample, in a random order."""
    width = levels[-1]["width"]
    number = next(i for i, level in enumerate(levels) if round(width / level["width"]) == downsample)
    columns, rows = levels[number]["tiles"]
    places = list(itertools.product(range(columns), range(rows)))
    random.Random(0).shuffle(places)
    return [f"api/slides/{key}/tiles/slide/{number}/{x}/{y}.jpg" for x, y in places]


def make_world(folder: Path, data: Path) -> None:
    """Two slides and results that fit them: "flat" has one level, "pyramid" has three."""
    slides, out = folder / "slides", folder / "out"
    slides.mkdir()
    flat = make_slide(slides / "flat.svs", SIDES, tissue=0.6, recode="420", data=data)
    with open_slide(data / SMALL_REGION) as small:
        region = small.read_region(0, 0, 0, small.width, small.height)
    rgb = np.tile(region, (4, 4, 1))[:8192, :8192]
    write_slide(slides / "pyramid.svs", rgb, tile=256, coding="420", levels=(4, 16), mpp=0.25)
    for path in (flat, slides / "pyramid.svs"):
        with open_slide(path) as slide:
            picture = slide.thumbnail(2048)
            plain = make_result(400)
            facts = replace(
                plain.slide, name=path.name, sha256=sha256(path.read_bytes()).hexdigest(), width=slide.width,
                height=slide.height, size_bytes=path.stat().st_size,
            )  # fmt: skip
        stored(replace(plain, slide=facts, thumbnail=picture), out / path.stem)


def measure(folder: Path) -> dict[str, Any]:
    """Tiles per second of each kind: median and spread of `REPEATS` runs, a new server each."""
    asked = {"stored": ("pyramid", 1), "between": ("pyramid", 2), "far": ("flat", 8), "picture": ("flat", 16)}
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(REPEATS):
        with serving(folder / "out", folder / "slides") as server:
            levels = {key: levels_of(server, key) for key in ("flat", "pyramid")}
            for kind, (key, downsample) in asked.items():
                paths = tiles_of(key, levels[key], downsample)
                found[kind].append(len(paths) / fetch(server, paths))
            paths = tiles_of("pyramid", levels["pyramid"], 2)
            found["cached"].append(len(paths) / fetch(server, paths))
    return {
        kind: {"tiles_per_s": round(statistics.median(rates), 1), "spread": round(max(rates) - min(rates), 1)}
        for kind, rates in found.items()
    }


def measure_memory(folder: Path) -> dict[str, Any]:
    """Memory after each 1,000 tiles of all zooms, MiB: over 10,000 different ones, asked for twice."""
    with serving(folder / "out", folder / "slides") as server:
        levels = levels_of(server, "flat")
        width = levels[-1]["width"]
        paths = [
            path
            for level in levels
            for path in tiles_of("flat", levels, round(width / level["width"]))
        ]  # fmt: skip
        random.Random(1).shuffle(paths)
        steps = []
        for done in range(0, 2 * len(paths), 1000):
            part = [paths[number % len(paths)] for number in range(done, min(done + 1000, 2 * len(paths)))]
            seconds = fetch(server, part)
            steps.append(
                {
                    "tiles": done + len(part),
                    "mib": round(server.memory_mib(), 1),
                    "tiles_per_s": round(len(part) / seconds, 1),
                }
            )
    full = next(step for step in steps if step["tiles"] >= 10_000)
    growth = max(step["mib"] for step in steps) - full["mib"]
    return {"different_tiles": len(paths), "steps": steps, "growth_after_10000_mib": round(growth, 1)}


def text_of(record: dict[str, Any]) -> str:
    """The page."""
    rows = "\n".join(
        f"| {KINDS[kind]} | {rate['tiles_per_s']:,.0f} | {rate['spread']:,.0f} |"
        for kind, rate in record["kinds"].items()
    )
    memory = record["memory"]
    different, growth = memory["different_tiles"], memory["growth_after_10000_mib"]
    steps = "\n".join(
        f"| {step['tiles']:,} | {step['mib']:.0f} | {step['tiles_per_s']:.0f} |" for step in memory["steps"]
    )
    return f"""# The viewer

`python benchmarks/bench_viewer.py`: the command `view` on {CORES} cores, asked over {CONNECTIONS}
connections from the same cores. The bar is {BAR_TILES_PER_S} tiles per second. The load average before the run was
{record["load_before"]}; above {CORES} the machine had other work, and a quiet one serves more.

| tiles | per second | spread of {REPEATS} runs |
|---|---|---|
{rows}

Memory of the server (both its processes) over {different:,} different tiles of all zooms of a slide without a
pyramid, in a random order, asked for twice. It grows until the cache of made tiles has reached its bound of 64 MiB;
from 10,000 tiles on it grew by {growth:.0f} MiB.

| tiles | MiB | tiles per second |
|---|---|---|
{steps}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the test data")
    data = parser.parse_args().data.resolve()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder, data)
        record = {
            "load_before": round(os.getloadavg()[0], 1),
            "cores": CORES,
            "connections": CONNECTIONS,
            "kinds": measure(folder),
            "memory": measure_memory(folder),
        }
    text = text_of(record)
    print(text)
    keep("viewer", record, text)


if __name__ == "__main__":
    main()
