"""A worker at its queues: takes runs, computes them into the store, and stops when there are none left."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fyi_bench.errors import BudgetExhausted, DivergenceError, FyiBenchError, Interrupted, StoreError
from fyi_bench.run.artefacts import Artefacts
from fyi_bench.run.logs import RunLog
from fyi_bench.run.numerics import check_numerics
from fyi_bench.run.queue import BEAT_S, GRACE_S, Claim, Queue
from fyi_bench.run.run_type import Follower, Worker, alike, ensure, run_type, together
from fyi_bench.run.runtime import set_threads

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LOOK_SHARE = 0.05, 1.0, 0.1
_EXPLAIN_S = 20.0
_POINTS, _POINT_S = 100, 1.0  # of a trial's curve at most, and seconds between two at least: each is a transaction
_TROUBLES, _TROUBLES_AT_FIRST = 10, 3  # unexpected errors in a row after which a worker mistrusts itself


@dataclass
class Habits:
    """How a worker behaves.

    linger: wait while others still work, in case one of them dies; else leave when nothing waits. tolerant: types
    whose failed runs end themselves alone; a failure of any other ends this worker (None: all are tolerated, for
    workers that serve many commands). threads: of every run, whatever its plan says. artefacts: where finished runs
    travel when workers share no folder. log: where curves go (`fyi_bench.run.logs`). done(digest) is told.
    """

    linger: bool = True
    tolerant: Sequence[str] | None = None
    threads: int | None = None
    beat_s: float = BEAT_S
    grace_s: float = GRACE_S
    artefacts: Artefacts | None = None
    log: str | None = None
    done: Callable[[str], None] = lambda digest: None

    def forgives(self, claim: Claim) -> bool:
        """Whether the failure of this run is no matter for the worker."""
        return self.tolerant is None or claim.spec.kind in self.tolerant


class Drain:
    """A worker at queues until no run is left. `run` may be called once."""

    def __init__(self, queues: Sequence[Queue], worker: Worker, habits: Habits | None = None):
        self.queues, self.worker, self.habits = queues, worker, habits or Habits()
        self.finished = self.troubles = 0
        self.idle_since: float | None = None
        self.pause, self.told = _FIRST_PAUSE_S, False

    def run(self) -> int:
        """Work; returns how many runs this worker finished.

        Raises what `worker.stop` raises when asked to stop, after giving the run back, and errors that are this
        machine's trouble (no data, disk full, a database that stays away): another worker may have more luck.
        """
        while True:
            self.worker.check()
            for queue in self.queues:
                for line in queue.bring_back(self.habits.grace_s):
                    self.worker.say(line)
            began = time.monotonic()
            claim = next((claim for queue in self.queues if (claim := queue.claim()) is not None), None)
            if claim is None:
                if not self._stay(time.monotonic() - began):
                    return self.finished
                continue
            with self._taken(claim) as claims:
                while claims:
                    self._ended_with(claims[0], ensure(claims[0].spec, self.worker))
                    claims.pop(0)

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
        return any(kind not in (self.habits.tolerant or ()) for kind, _, _ in queue.failed())

    @contextlib.contextmanager
    def _taken(self, claim: Claim) -> Iterator[list[Claim]]:
        """The claim, and others that the device computes at the same time; what is not taken out waits again.

        The first in the list is the one at work: an error is its own.
        """
        self.idle_since, self.pause = None, _FIRST_PAUSE_S
        key, count = alike(claim.spec, self.worker)
        more = claim.queue.claim_alike(key, count - 1, lambda spec: alike(spec, self.worker)[0]) if count > 1 else []
        left = [claim, *more]
        with contextlib.ExitStack() as hearts:
            for each in left:
                self._follow(each, hearts)
            try:
                self._make_ready(claim)
                if more:
                    together([each.spec for each in left], self.worker)
                yield left
            except Exception as error:
                if not self._failed(left.pop(0), error):
                    raise
            finally:
                for each in left:
                    with contextlib.suppress(StoreError):  # the database may be the trouble
                        each.queue.put_back(each)

    def _follow(self, claim: Claim, until: contextlib.ExitStack) -> None:
        """Let a heart beat for the run, and a log hear of it, until the stack is left."""
        spec, worker = claim.spec, self.worker
        followers: list[Heart | RunLog] = [Heart(claim, self.habits.beat_s)]
        if self.habits.log is not None:
            followers.append(RunLog(self.habits.log, worker.store.root, claim.study, spec, worker.say))
        for follower in followers:
            until.enter_context(follower)
        worker.followers[spec.digest] = followers
        until.callback(worker.followers.pop, spec.digest)

    def _make_ready(self, claim: Claim) -> None:
        check_numerics(claim.spec.inputs.get("numerics", {}), self.worker.device)
        set_threads(self.habits.threads or claim.threads)
        if self.habits.artefacts is not None:
            for kind, digest in claim.needs:
                self.habits.artefacts.bring(self.worker.store, kind, digest)

    def _ended_with(self, claim: Claim, record: Mapping[str, Any]) -> None:
        if self.habits.artefacts is not None:
            self.habits.artefacts.put(self.worker.store, claim.spec.kind, claim.spec.digest)
        for follower in self.worker.followers[claim.spec.digest]:
            follower.ended(record)
        value = run_type(claim.spec).metric_of(claim.spec).of(record)
        claim.queue.complete(claim, value, {"seconds": record.get("wall_s"), "worker": claim.holder})
        self._done(claim)

    def _done(self, claim: Claim) -> None:
        self.troubles = 0
        self.finished += 1
        self.habits.done(claim.spec.digest)

    def _failed(self, claim: Claim, error: Exception) -> bool:
        """Tell the queue; whether this worker goes on."""
        forgives, reason = self.habits.forgives(claim), _first_line(str(error))
        if isinstance(error, DivergenceError):
            claim.queue.fail(claim, reason)
            self._done(claim)
            return forgives
        if isinstance(error, FyiBenchError):
            stopped = isinstance(error, BudgetExhausted | Interrupted)
            with contextlib.suppress(StoreError):  # the database may be the trouble
                claim.queue.put_back(claim, None if stopped else reason)
            return False
        # an error nobody foresaw: it may be the run's or this machine's, so the run goes to somebody else
        self.troubles += 1
        text = f"{type(error).__name__}: {reason}"
        again = claim.queue.put_back(claim, text)
        if forgives:
            where = traceback.extract_tb(error.__traceback__)[-1]
            ending = "it waits for another try" if again else "it counts as failed"
            self.worker.say(
                f"{claim.spec.kind} {claim.spec.digest} failed ({text}, {where.name}:{where.lineno}); {ending}."
            )
        return forgives and self.troubles < (_TROUBLES if self.finished else _TROUBLES_AT_FIRST)


class Heart(Follower):
    """Counts up a run's sign of life in a thread of its own while it is worked on, and gives the queue its curve."""

    def __init__(self, claim: Claim, beat_s: float):
        self._claim, self._beat_s, self._over = claim, beat_s, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)
        self._curve: deque[tuple[int, float]] = deque()  # what the queue was not told yet
        self._told = (0, -math.inf)  # step and time of the last point
        self._sending = threading.Lock()

    def progress(self, done: int, total: int, loss: float) -> None:
        """Keep a point of the loss curve now and then; the heart's thread sends it."""
        step, at = self._told
        now = time.monotonic()
        due = now - at >= _POINT_S and (done - step) * _POINTS >= total
        if math.isfinite(loss) and (due or done == total):
            self._told = done, now
            self._curve.append((done, loss))

    def ended(self, record: Mapping[str, Any]) -> None:
        """Send the rest of the curve, before the trial is over and takes none."""
        self._send()

    def _send(self) -> None:
        with self._sending, contextlib.suppress(StoreError):  # a database that is away misses a point
            while self._curve:
                self._claim.queue.plot(self._claim, *self._curve.popleft())

    def _beat(self) -> None:
        count, going = 0, True
        while going and not self._over.wait(self._beat_s):
            count += 1
            with contextlib.suppress(StoreError):  # a database that is away will hear the next beat
                going = self._claim.queue.beat(self._claim, count)
            self._send()
        self._claim.queue.end_thread()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
