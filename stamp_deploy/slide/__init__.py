"""A file becomes a slide: its levels, microns per pixel and the route by which its tiles are read."""

from ..system.quiet import quiet_libraries
from .opening import open_slide, slide_file
from .slide import Slide

__all__ = ["Slide", "open_slide", "slide_file"]

quiet_libraries()
