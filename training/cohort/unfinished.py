"""The folder in which a cohort grows, sample by sample: what is finished there is not made again.

It lies beside the cohort under a name of its own. Each finished sample has a note of what it was made from: another
setting, another file or another version makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stamp_deploy import __version__
from stamp_deploy.atomic import write_json_atomic
from stamp_deploy.errors import UsageError

from .config import CohortConfig, SampleConfig
from .store import SampleFacts

NOTE = "finished.json"


class Unfinished:
    """The growing folder of a cohort.

    Parameters
    ----------
    out : Path
        The cohort folder to be.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.absolute().parent / f".{out.name}.building"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, or find it, for one build at a time; where nothing in it is finished, it goes again.

        Raises
        ------
        UsageError
            Another build is at work on the same cohort.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    "another build of this cohort is at work", path=self.folder, remedy="wait for it, or stop it"
                ) from error
            try:
                yield
            finally:
                if not list(self.folder.glob(f"samples/*/{NOTE}")):
                    shutil.rmtree(self.folder, ignore_errors=True)

    def finished(self, sample_id: str, key: str) -> SampleFacts | None:
        """The facts of a sample that is finished and of this key; another one's remains are removed."""
        place = self.folder / "samples" / sample_id
        try:
            note = json.loads((place / NOTE).read_text(encoding="utf-8"))
            if note["key"] == key:
                return SampleFacts(**note["facts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(place, ignore_errors=True)
        return None

    def finish(self, facts: SampleFacts, key: str) -> None:
        """Note that a sample is whole."""
        write_json_atomic(self.folder / "samples" / facts.id / NOTE, {"key": key, "facts": asdict(facts)})

    def hand_over(self, facts: SampleFacts, cohort: Path) -> None:
        """Move a finished sample into a cohort folder."""
        place = self.folder / "samples" / facts.id
        target = cohort / "samples" / facts.id
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of an appending that was killed: cohort.json does not name it
        place.rename(target)
        (target / NOTE).unlink()

    def take_back(self, facts: SampleFacts, key: str, cohort: Path) -> None:
        """Undo `hand_over`."""
        place = self.folder / "samples" / facts.id
        if not place.exists() and (cohort / "samples" / facts.id).exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            (cohort / "samples" / facts.id).rename(place)
            self.finish(facts, key)


def sample_key(sample: SampleConfig, config: CohortConfig, gene_sets: list[str], pictures: bool) -> str:
    """Digest of what a sample's files depend on: settings, gene sets, this version, and its input files as they are."""
    files: list[Any] = []
    for name, value in sorted(sample.settings.values.items()):
        path = sample.settings.folder / Path(value).expanduser() if isinstance(value, str) and value else None
        if path is not None and path.is_file():
            status = path.stat()
            files.append([name, status.st_size, status.st_mtime_ns])
        elif path is not None and path.is_dir():
            inside = sorted((str(p.relative_to(path)), p.stat()) for p in path.rglob("*") if p.is_file())
            files += [[name, where, s.st_size, s.st_mtime_ns] for where, s in inside]
    facts = [__version__, pictures, config.to_dict(), gene_sets, sample.settings.values, files]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
