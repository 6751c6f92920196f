"""A worker at its queues: takes runs, computes them into the store, and stops when there are none left."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fyi_bench.errors import BudgetExhausted, DivergenceError, FyiBenchError, Interrupted, StoreError
from fyi_bench.run.artefacts import Artefacts
from fyi_bench.run.numerics import check_numerics
from fyi_bench.run.queue import BEAT_S, GRACE_S, Claim, Queue
from fyi_bench.run.runtime import set_threads
from fyi_bench.run.worker import Worker, alike, ensure, together

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LOOK_SHARE = 0.05, 1.0, 0.1
_EXPLAIN_S = 20.0
_TROUBLES, _TROUBLES_AT_FIRST = 10, 3  # unexpected errors in a row after which a worker mistrusts itself


@dataclass
class Habits:
    """How a worker behaves.

    linger: wait while others still work, in case one of them dies; else leave when nothing waits. tolerant: types
    whose failed runs end themselves alone; a failure of any other ends this worker (None: all are tolerated, for
    workers that serve many commands). threads: of every run, whatever its plan says. artefacts: where finished runs
    travel when workers share no folder. done(digest) is told.
    """

    linger: bool = True
    tolerant: Sequence[str] | None = None
    threads: int | None = None
    beat_s: float = BEAT_S
    grace_s: float = GRACE_S
    artefacts: Artefacts | None = None
    done: Callable[[str], None] = lambda digest: None

    def forgives(self, claim: Claim) -> bool:
        """Whether the failure of this run is no matter for the worker."""
        return self.tolerant is None or claim.spec.kind in self.tolerant


def drain(queues: Sequence[Queue], worker: Worker, habits: Habits | None = None) -> int:
    """Work until no run is left; returns how many this worker finished.

    Raises what `worker.stop` raises when asked to stop, after giving the run back, and errors that are this machine's
    trouble (no data, disk full, a database that stays away): another worker may have more luck.
    """
    return _Drain(queues, worker, habits or Habits()).run()


class _Drain:
    def __init__(self, queues: Sequence[Queue], worker: Worker, habits: Habits):
        self.queues, self.worker, self.habits = queues, worker, habits
        self.finished = self.troubles = 0
        self.idle_since: float | None = None
        self.pause, self.told = _FIRST_PAUSE_S, False

    def run(self) -> int:
        while True:
            self.worker.check()
            for queue in self.queues:
                for line in queue.bring_back(self.habits.grace_s):
                    self.worker.say(line)
            began = time.monotonic()
            claim = next((claim for queue in self.queues if (claim := queue.claim()) is not None), None)
            if claim is not None:
                self._work(claim)
            elif not self._stay(time.monotonic() - began):
                return self.finished

    def _stay(self, looked_s: float) -> bool:
        """Whether to wait, when nothing can be taken now; a little while has passed then."""
        if not self.habits.linger or not any(queue.has_open() for queue in self.queues):
            return False
        if self.habits.tolerant is not None and any(self._ended(queue) for queue in self.queues):
            return False
        now = time.monotonic()
        self.idle_since = self.idle_since or now
        if not self.told and now - self.idle_since > _EXPLAIN_S:
            self.told = True
            self.worker.say("Nothing waits; staying while other workers finish theirs, in case one of them dies.")
        time.sleep(max(looked_s / _LOOK_SHARE, min(self.pause, self.habits.grace_s / 2)))
        self.pause = min(_LONGEST_PAUSE_S, 2 * self.pause)
        return True

    def _ended(self, queue: Queue) -> bool:
        """Whether a run that matters failed elsewhere: the command will say so."""
        return any(kind not in self.habits.tolerant for kind, _, _ in queue.failed())

    def _work(self, claim: Claim) -> None:
        self.idle_since, self.pause = None, _FIRST_PAUSE_S
        key, count = alike(claim.spec, self.worker)
        more = claim.queue.claim_alike(key, count - 1, lambda spec: alike(spec, self.worker)[0]) if count > 1 else []
        claims = [claim, *more]
        with contextlib.ExitStack() as hearts:
            for each in claims:
                hearts.enter_context(Heart(each, self.habits.beat_s))
            if more:
                self._together(claims)
            for position, each in enumerate(claims):
                try:
                    self._one(each)
                except BaseException:
                    for left in claims[position + 1 :]:
                        with contextlib.suppress(StoreError):
                            left.queue.put_back(left)
                    raise

    def _together(self, claims: Sequence[Claim]) -> None:
        self._make_ready(claims[0])
        try:
            together([claim.spec for claim in claims], self.worker)
        except BaseException:
            for claim in claims:
                with contextlib.suppress(StoreError):
                    claim.queue.put_back(claim)
            raise

    def _one(self, claim: Claim) -> None:
        queue = claim.queue
        try:
            record = self._record(claim)
        except DivergenceError as error:
            queue.fail(claim, _first_line(str(error)))
            if not self.habits.forgives(claim):
                raise
        except (BudgetExhausted, Interrupted, KeyboardInterrupt):
            queue.put_back(claim)
            raise
        except FyiBenchError as error:
            with contextlib.suppress(StoreError):  # the database may be the trouble
                queue.put_back(claim, _first_line(str(error)))
            raise
        except Exception as error:
            self.troubles += 1
            self._forgive(claim, error)
            if not self.habits.forgives(claim) or self.troubles >= (_TROUBLES if self.finished else _TROUBLES_AT_FIRST):
                raise
            return
        else:
            queue.complete(claim, record.get("value"), {"seconds": record.get("wall_s"), "worker": claim.holder})
        self.troubles = 0
        self.finished += 1
        self.habits.done(claim.spec.digest)

    def _make_ready(self, claim: Claim) -> None:
        check_numerics(claim.spec.inputs.get("numerics", {}))
        set_threads(self.habits.threads or claim.threads)
        if self.habits.artefacts is not None:
            for kind, digest in claim.needs:
                self.habits.artefacts.bring(self.worker.store, kind, digest)

    def _record(self, claim: Claim) -> Mapping[str, Any]:
        self._make_ready(claim)
        record = ensure(claim.spec, self.worker)
        if self.habits.artefacts is not None:
            self.habits.artefacts.put(self.worker.store, claim.spec.kind, claim.spec.digest)
        return record

    def _forgive(self, claim: Claim, error: Exception) -> None:
        """An error nobody foresaw: it may be the run's or this machine's, so the run goes to somebody else."""
        text = f"{type(error).__name__}: {_first_line(str(error))}"
        again = claim.queue.put_back(claim, text)
        if not self.habits.forgives(claim):
            return
        where = traceback.extract_tb(error.__traceback__)[-1]
        ending = "it waits for another try" if again else "it counts as failed"
        self.worker.say(
            f"{claim.spec.kind} {claim.spec.digest} failed ({text}, {where.name}:{where.lineno}); {ending}."
        )


class Heart:
    """Counts up a run's sign of life in a thread of its own while it is worked on."""

    def __init__(self, claim: Claim, beat_s: float):
        self._claim, self._beat_s, self._over = claim, beat_s, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def _beat(self) -> None:
        count, going = 0, True
        while going and not self._over.wait(self._beat_s):
            count += 1
            with contextlib.suppress(StoreError):  # a database that is away will hear the next beat
                going = self._claim.queue.beat(self._claim, count)
        self._claim.queue.end_thread()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
