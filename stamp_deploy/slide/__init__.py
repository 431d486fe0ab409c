"""A file becomes a slide: its levels, microns per pixel and the route by which its tiles are read."""

from ..quiet import quiet_libraries
from .slide import Slide, open_slide

__all__ = ["Slide", "open_slide"]

quiet_libraries()
