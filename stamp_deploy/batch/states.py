"""The words for what can become of a slide. Their values are what the ledger, the claims and batch.json hold."""

from __future__ import annotations

from enum import StrEnum


class PlanState(StrEnum):
    """What the plan means to do with a slide."""

    RUN = "run"
    DONE = "done"
    """A finished result is there."""
    DUPLICATE = "duplicate"
    """The same bytes as another slide of the plan."""
    BAD = "bad"
    """It cannot be run; the slide's `reason` says why."""


class AttemptState(StrEnum):
    """How far an attempt on a slide has come, in claims, ledger and report."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """A stated error: trying again would give the same."""
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    """Nobody's fault; it does not count as an attempt."""
    QUARANTINED = "quarantined"
    """It crashed or hung its worker too often."""

    @property
    def final(self) -> bool:
        """Whether the slide is not tried again unless asked for."""
        return self in (AttemptState.DONE, AttemptState.FAILED, AttemptState.QUARANTINED)

    @property
    def counts(self) -> bool:
        """Whether the attempt counts against the slide."""
        return self in (AttemptState.CRASHED, AttemptState.TIMEOUT)


FLAGGED = {
    "outside": "outside what the model knows",
    "doubtful": "only partly like what the model knows",
}
"""Verdicts on a slide that a finished slide is flagged with, in words."""


class OutcomeState(StrEnum):
    """How a worker's attempt ended, before the board has decided what that means for the slide."""

    DONE = "done"
    FAILED = "failed"
    CRASHED = "crashed"
    """The worker was lost with the slide in it."""
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    DISK = "disk"
    """The output cannot be written: the batch must stop."""


class FindingKind(StrEnum):
    """What a plan found that a user should know."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    MISSING_MPP = "missing-mpp"
    DUPLICATE_NAME = "duplicate-name"
    DUPLICATE_CONTENT = "duplicate-content"
    DISK_SPACE = "disk-space"
    CHANGED = "changed-content"
    """The slide's bytes are not those of its finished result."""
    BROKEN_RESULT = "broken-result"
    SKIPPED = "skipped"
    """Left out of a folder that was named."""
    NO_SUMMARY = "no-summary"
    """Results are whole, the summary beside them could not be written."""
    NO_LOCKS = "no-locks"
    ARCHIVE = "archive"
    """An image archive that failed, or a series of it; it is tried again."""
    REPAIRED = "repaired"
    """Something of the batch's own that was damaged and has been made again."""
