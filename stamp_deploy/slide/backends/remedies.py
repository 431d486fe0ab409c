"""What to do about a reader's error: only damage is mended by another copy."""

from __future__ import annotations

import re

from ...errors import COPY_AGAIN

_CONVERT = "convert it to tiled JPEG in SVS, TIFF or DICOM: its coding is not one that can be read here"
_REMEDIES = (
    (r"focal ?plane", "it holds several focal planes: export one of them as a slide of its own"),
    (r"direction", "it was scanned in a direction that cannot be put together here: export it as TIFF, SVS or DICOM"),
    (
        r"image flavor",
        r"its ImageType does not say what it shows: set it to ORIGINAL\PRIMARY\VOLUME\NONE, or export again",
    ),
    (r"no pyramid levels", "its folder lacks the series' full-resolution file (ImageType VOLUME): add it, or name it"),
    (r"SOP instance", "files of the series are missing: copy all of them into one folder"),
    (r"SamplesPerPixel", "it is a grey picture, and the model was trained on RGB: name the slide's brightfield scan"),
    (r"Bits(Allocated|Stored)", "it has not 8 bits a colour: export it as 8-bit RGB"),
    (r"nsupported|not supported|not implemented|not configured|can ?not handle|codec", _CONVERT),
    (r"allocate|out of memory", "free some memory, or run fewer slides at once"),
)


def remedy_for(message: str) -> str:
    """The remedy for what OpenSlide or libvips said."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, message, re.IGNORECASE):
            return remedy
    return COPY_AGAIN
