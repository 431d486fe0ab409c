"""What the viewer answers: from the parts of an address to bytes. It knows nothing of sockets (see server.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..errors import DiskError, StampError, UsageError
from .answers import BINARY, GEOJSON, JPEG, Answer, error_answer, json_answer
from .region import area_of, region_facts
from .result_facts import cells_bytes, gallery_picture, layer_bytes, levels_facts, result_facts, thumbnail
from .saved_annotations import FOLDER, Conflict, SavedAnnotations
from .shown_results import Shown, ShownResults
from .slide_finder import SlideFinder
from .slide_source import SlideSource, SlideSources
from .static_files import StaticFiles
from .tile_cache import CACHE_BYTES, TileCache


class ViewerApp:
    """The viewer over a result, or the output folder of a batch.

    Parameters
    ----------
    given : Path
        A finished result, or a folder of them.
    slides : sequence of Path
        Where the slides lie: files, and folders with all folders below.
    annotations : Path, optional
        Where annotations are saved; by default ``annotations`` beside the results.
    cache_bytes : int
        What tiles that were made may take.

    Raises
    ------
    UsageError
        There is nothing to be shown.
    """

    def __init__(
        self,
        given: Path,
        slides: tuple[Path, ...] = (),
        annotations: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.results = ShownResults(given)
        home = self.results.home
        self.sources = SlideSources(SlideFinder(slides, (home, home.resolve().parent)), TileCache(cache_bytes))
        self.annotations = SavedAnnotations(annotations or home / FOLDER)
        self._static = StaticFiles()

    def close(self) -> None:
        """Close all slides."""
        self.sources.close()

    def get(self, parts: tuple[str, ...]) -> Answer:
        """Answer a GET of an address below the token, taken apart at its slashes and decoded."""
        match parts:
            case ("" | "index.html",):
                return self._static.page()
            case ("static", name):
                return self._file(name)
            case ("api", "slides"):
                facts = {"version": __version__, "batch": self.results.is_batch, "slides": self.results.rows()}
                return json_answer(facts)
            case ("api", "slides", key, *rest):
                return self._of_slide(lambda: self._get_slide(key, tuple(rest)))
        return _not_found()

    def send(self, method: str, parts: tuple[str, ...], body: Any) -> Answer:
        """Answer a POST or PUT of a JSON value."""
        match (method, *parts):
            case ("POST", "api", "slides", key, "region"):
                return self._of_slide(lambda: self._region(key, body))
            case ("PUT", "api", "slides", key, "annotations"):
                return self._of_slide(lambda: self._save(key, body))
        return _not_found()

    def _file(self, name: str) -> Answer:
        found = self._static.get(name)
        return _not_found() if found is None else found

    def _of_slide(self, work: Callable[[], Answer]) -> Answer:
        """An answer about a slide; what cannot be done is told with its cause and remedy."""
        try:
            return work()
        except (KeyError, IndexError, ValueError):
            return _not_found()
        except Conflict as error:
            return error_answer(409, error.cause, error.remedy)
        except DiskError as error:
            return error_answer(507, str(error))
        except UsageError as error:
            return error_answer(422, error.cause, error.remedy)
        except StampError as error:
            return error_answer(500, str(error))

    def _get_slide(self, key: str, rest: tuple[str, ...]) -> Answer:
        shown = self.results.shown(key)
        result = shown.result
        match rest:
            case ():
                return json_answer(result_facts(result))
            case ("cells",):
                return Answer(200, cells_bytes(result), BINARY)
            case ("values", number):
                return Answer(200, layer_bytes(result, int(number)), BINARY)
            case ("gallery", tile):
                return Answer(200, gallery_picture(result, int(tile)), JPEG)
            case ("thumbnail",):
                return Answer(200, thumbnail(result), JPEG)
            case ("source",):
                return self._with_source(shown, _source_answer)
            case ("tiles", kind, level, column, row):
                return self._with_source(shown, lambda source: _tile(source, kind, level, column, row))
            case ("annotations",):
                return json_answer(self.annotations.read(key, result))
            case ("annotations.geojson",):
                return self._export(shown)
        return _not_found()

    def _with_source(self, shown: Shown, work: Callable[[SlideSource], Answer]) -> Answer:
        with self.sources.use(f"{shown.key}@{shown.version}", shown.result) as source:
            return work(source)

    def _region(self, key: str, body: Any) -> Answer:
        result = self.results.shown(key).result
        if not isinstance(body, dict) or not isinstance(body.get("polygons"), list):
            raise UsageError("no polygons were sent", remedy="draw three corners or more")
        return json_answer(region_facts(result, area_of(body["polygons"])))

    def _save(self, key: str, body: Any) -> Answer:
        return json_answer(self.annotations.write(key, self.results.shown(key).result, body))

    def _export(self, shown: Shown) -> Answer:
        """The saved file as it lies on the disk: QuPath opens it."""
        path = self.annotations.path(shown.key, shown.result)
        if not path.is_file():
            raise UsageError("nothing is saved for this slide", remedy="draw an annotation and save it first")
        plain = path.name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_")
        name = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(path.name)}"
        return Answer(200, path.read_bytes(), GEOJSON, {"Content-Disposition": name})


def _source_answer(source: SlideSource) -> Answer:
    kind, facts = source.kind, source.facts
    maker = source.maker_of(kind)
    levels = [] if maker is None else levels_facts(maker)
    return json_answer({"state": facts.state, "words": facts.words, "kind": kind, "levels": levels})


def _tile(source: SlideSource, kind: str, level: str, column: str, row: str) -> Answer:
    maker = source.maker_of(kind)
    if maker is None:
        return error_answer(409, source.facts.words)
    return Answer(200, maker.tile(int(level), int(column), int(row.removesuffix(".jpg"))), JPEG)


def _not_found() -> Answer:
    return error_answer(404, "there is nothing at this address")
