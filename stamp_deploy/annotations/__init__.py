"""What a person drew on a slide: regions of interest by class, and tissue masks."""

from .by_slide import file_for_slide
from .geojson import Annotations, read_annotations
from .given_mask import OUTLINES, PICTURES, read_mask
from .raster import outlines, rasterise

__all__ = [
    "OUTLINES", "PICTURES", "Annotations", "file_for_slide", "outlines", "rasterise", "read_annotations", "read_mask",
]  # fmt: skip
