"""File names as text: a name on disk is any bytes, and what is shown, logged or stored must be plain text.

Python decodes bytes that are no UTF-8 to lone surrogates, which no UTF-8 file, JSON reader or database takes; and a
name may hold line breaks and terminal escapes, which forge lines of a log. Both are shown as escapes.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

NAME_MAX_BYTES = 255
"""Longest name of a file on the usual file systems."""
_ESCAPED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_BIDI_CONTROLS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str) -> str:
    r"""The text with control characters and undecodable bytes as escapes: ``\n``, ``\x1b``, ``\xfc``, ``\u202e``."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def shown_name(path: Path) -> str:
    """A file's name, without its folder, as text for people and records."""
    return printable(path.name)


def cut_name(name: str, max_bytes: int) -> str:
    """The longest beginning of a name that takes at most `max_bytes` on the disk, cut between characters."""
    used = 0
    for number, char in enumerate(name):
        used += len(os.fsencode(char))
        if used > max_bytes:
            return name[:number]
    return name


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if unicodedata.category(char) not in _ESCAPED_CATEGORIES and char not in _BIDI_CONTROLS:
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
