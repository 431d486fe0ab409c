"""Codings of storage tiles beside JPEG: each stream is decoded by a kept library, in a process of its own."""

from .coding import Coding, StreamKind
from .decoder import Decoder, StreamError

__all__ = ["Coding", "Decoder", "StreamError", "StreamKind"]
