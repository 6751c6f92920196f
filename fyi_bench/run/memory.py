"""A sweep without a database, for the one process it lives in: where Optuna is not installed.

The store still knows what is done, so a stopped command goes on; only other workers cannot help.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from fyi_bench.run.queue import MAX_FAILURES, Claim, Counts, Job, this_process


class MemorySweep:
    """Has the methods of `fyi_bench.run.queue.Sweep` that a worker uses, with the same meaning."""

    name = "this process"

    def __init__(self, jobs: Iterable[Job]):
        self._waiting = deque(jobs)
        self._running: dict[str, Job] = {}
        self._complete = 0
        self._failures: dict[str, list[str]] = {}
        self._failed: dict[str, str] = {}

    def claim(self) -> Claim | None:
        """Take the next job."""
        if not self._waiting:
            return None
        job = self._waiting.popleft()
        self._running[job.cell.digest] = job
        return Claim(self, 0, job, this_process())

    def complete(self, claim: Claim, value: float | None, facts: Mapping[str, Any] | None = None) -> None:
        """The record is in the store."""
        del self._running[claim.job.cell.digest]
        self._complete += 1

    def fail(self, claim: Claim, reason: str) -> None:
        """The job's numbers diverged."""
        self._failed[claim.job.cell.digest] = reason
        del self._running[claim.job.cell.digest]

    def put_back(self, claim: Claim, failure: str | None = None) -> bool:
        """Let the job wait again, or give it up after MAX_FAILURES: then False."""
        digest = claim.job.cell.digest
        job, failures = self._running.pop(digest), self._failures.setdefault(digest, [])
        failures += [failure] if failure else []
        if len(failures) >= MAX_FAILURES:
            self._failed[digest] = "; ".join(failures)
            return False
        self._waiting.append(job)
        return True

    def beat(self, claim: Claim, count: int) -> bool:
        """Nobody watches."""
        return True

    def end_thread(self) -> None:
        """Nothing is kept open."""

    def bring_back(self, grace_s: float = 0.0) -> list[str]:
        """There are no other workers that could die."""
        return []

    def has_open(self) -> bool:
        """Whether some job waits."""
        return bool(self._waiting or self._running)

    def counts(self) -> Counts:
        """Jobs by state now."""
        return Counts(len(self._waiting), len(self._running), self._complete, len(self._failed))

    def failures(self) -> dict[str, str]:
        """Digest of each failed job -> why."""
        return dict(self._failed)
