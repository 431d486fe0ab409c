"""The parts of a multipart/related answer (RFC 2387), as they arrive: nothing is held but the piece at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from ..errors import ArchiveError, ArchiveUnreachable

DICOM = "application/dicom"


def dicom_pieces(content_type: str, body: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of the one DICOM object in an answer, with or without multipart around it.

    Raises
    ------
    ArchiveError
        It holds something else, or several objects.
    ArchiveUnreachable
        It ends before its last boundary.
    """
    kind = Message()
    kind["Content-Type"] = content_type or "none/none"
    if kind.get_content_type() == DICOM:
        yield from body
        return
    boundary = kind.get_boundary()
    if kind.get_content_maintype() != "multipart" or not boundary:
        raise ArchiveError("the archive sends an instance as something else than DICOM", remedy="ask its administrator")
    reader = _Reader(boundary)
    for piece in body:
        yield from reader.write(piece)
    if not reader.ended:
        raise ArchiveUnreachable("the archive ended its answer in the middle of an instance", remedy="run it again")
    if reader.parts == 0:
        raise ArchiveError("the archive's answer holds no instance", remedy="ask its administrator")


class _Reader:
    def __init__(self, boundary: str) -> None:
        self.parts, self.ended = 0, False
        self._found: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1", "replace"),
                {"on_part_begin": self._begin, "on_part_data": self._data, "on_end": self._end},
            )
        except (FormParserError, ValueError) as error:
            raise _unreadable() from error

    def write(self, piece: bytes) -> list[bytes]:
        """What a piece of the answer adds to the object."""
        self._found = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _unreadable() from error
        return self._found

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise ArchiveError("the archive sends several instances for one", remedy="ask its administrator")

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _end(self) -> None:
        self.ended = True


def _unreadable() -> ArchiveError:
    return ArchiveError("the archive's answer is no multipart message", remedy="ask its administrator")
