"""Messages are one line, name the file but not its folder, and survive a process boundary."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

from stamp_deploy import errors


def test_message_is_one_line_with_file_cause_and_remedy() -> None:
    error = errors.SlideError("cannot be\nopened", path="/patients/Jane Doe/slide.svs", remedy="copy it again")
    assert str(error) == "slide.svs: cannot be opened - copy it again"
    assert error.exit_code == 4


def test_errors_cross_a_process_boundary() -> None:
    error = errors.MppError("no mpp", path="a.svs", remedy="add --mpp")
    clone = ForkingPickler.loads(ForkingPickler.dumps(error))
    assert type(clone) is errors.MppError
    assert str(clone) == str(error)
