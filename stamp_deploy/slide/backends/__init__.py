"""Readers of slide files: each opens a file, lists its levels and reads regions of them."""

from .base import Backend, Level, UnknownFormatError

__all__ = ["Backend", "Level", "UnknownFormatError"]
