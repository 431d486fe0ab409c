"""Which annotation file belongs to a slide: the file itself, or the one of the slide's name in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..system.names import shown_name


def file_for_slide(given: Path, slide: Path, suffixes: Sequence[str], option: str) -> Path:
    """The file for a slide.

    Parameters
    ----------
    given : Path
        A file, or a folder of files that are called like the slides: ``a.geojson`` or ``a.svs.geojson`` for ``a.svs``.
    slide : Path
    suffixes : sequence of str
        Endings to look for.
    option : str
        Name of the option, for messages.

    Raises
    ------
    UsageError
        The folder holds none for this slide, or several.
    """
    if not given.is_dir():
        return given
    names = [f"{stem}{suffix}" for stem in dict.fromkeys((slide.stem, slide.name)) for suffix in suffixes]
    found = [given / name for name in names if (given / name).is_file()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            f"the folder of {option} holds no file for {shown_name(slide)}",
            path=given,
            remedy=f"call it {slide.stem}{suffixes[0]}, or leave the slide out",
        )
    raise UsageError(
        f"the folder of {option} holds {len(found)} files for {shown_name(slide)}",
        path=given,
        remedy="keep one of them",
    )
