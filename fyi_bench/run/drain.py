"""A worker of sweeps: takes jobs, computes their cells into the store, and stops when there are none left."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import BudgetExhausted, DivergenceError, FyiBenchError, Interrupted, StoreError
from fyi_bench.run.numerics import check_numerics
from fyi_bench.run.queue import BEAT_S, GRACE_S, Claim, Sweep
from fyi_bench.run.worker import Worker, ensure

if TYPE_CHECKING:
    from fyi_bench.run.artefacts import Artefacts
    from fyi_bench.run.memory import MemorySweep

POLL_S = 1.0
_EXPLAIN_S = 20.0
_TROUBLES, _TROUBLES_AT_FIRST = 10, 3  # unexpected errors in a row after which a worker mistrusts itself


@dataclass
class Habits:
    """How a worker behaves.

    linger: wait while others still work, in case one of them dies; else leave when nothing waits.
    artefacts: where finished runs travel when workers share no folder. done(digest) is told.
    """

    linger: bool = True
    beat_s: float = BEAT_S
    grace_s: float = GRACE_S
    artefacts: Artefacts | None = None
    done: Callable[[str], None] = lambda digest: None


@dataclass
class _State:
    finished: int = 0
    troubles: int = 0
    idle_since: float | None = None
    told: bool = False

    def linger(self, worker: Worker) -> None:
        """Say once, when it takes longer, why this worker neither works nor leaves."""
        now = time.monotonic()
        self.idle_since = self.idle_since or now
        if not self.told and now - self.idle_since > _EXPLAIN_S:
            self.told = True
            worker.say("Nothing waits; staying while other workers finish theirs, in case one of them dies.")


def drain(sweeps: Sequence[Sweep | MemorySweep], worker: Worker, habits: Habits | None = None) -> int:
    """Work until no job is left; returns how many this worker finished.

    Raises what `worker.stop` raises when asked to stop, after giving the job back, and errors that are this
    machine's trouble (no data, disk full, a database that stays away): another worker may have more luck.
    """
    habits, state = habits or Habits(), _State()
    while True:
        _check(worker)
        for sweep in sweeps:
            for line in sweep.bring_back(habits.grace_s):
                worker.say(line)
        claim = next((claim for sweep in sweeps if (claim := sweep.claim()) is not None), None)
        if claim is not None:
            _work(claim, worker, habits, state)
        elif not habits.linger or not any(sweep.has_open() for sweep in sweeps):
            return state.finished
        else:
            state.linger(worker)
            time.sleep(min(POLL_S, habits.grace_s / 2))


def _work(claim: Claim, worker: Worker, habits: Habits, state: _State) -> None:
    sweep = claim.sweep
    try:
        with Heart(claim, habits.beat_s):
            record = _record(claim, worker, habits)
    except DivergenceError as error:
        sweep.fail(claim, _first_line(str(error)))
    except (BudgetExhausted, Interrupted, KeyboardInterrupt):
        sweep.put_back(claim)
        raise
    except FyiBenchError as error:
        with contextlib.suppress(StoreError):  # the database may be the trouble
            sweep.put_back(claim, _first_line(str(error)))
        raise
    except Exception as error:
        state.troubles += 1
        _forgive(claim, worker, error)
        if state.troubles >= (_TROUBLES if state.finished else _TROUBLES_AT_FIRST):
            raise
        return
    else:
        value = record.get("value")
        sweep.complete(claim, value, {"seconds": record.get("wall_s"), "worker": claim.holder})
    state.troubles = 0
    state.finished += 1
    habits.done(claim.job.cell.digest)


def _record(claim: Claim, worker: Worker, habits: Habits) -> dict[str, Any]:
    cell = claim.job.cell
    check_numerics(cell.inputs.get("numerics", {}))
    if habits.artefacts is None:
        return ensure(cell, worker)
    for kind, digest in claim.job.needs:
        habits.artefacts.bring(worker.store, kind, digest)
    record = ensure(cell, worker)
    habits.artefacts.put(worker.store, cell.kind, cell.digest)
    return record


def _forgive(claim: Claim, worker: Worker, error: Exception) -> None:
    """An error nobody foresaw: it may be the job's or this machine's, so the job goes to somebody else."""
    text = f"{type(error).__name__}: {_first_line(str(error))}"
    again = claim.sweep.put_back(claim, text)
    where = traceback.extract_tb(error.__traceback__)[-1]
    ending = "it waits for another try" if again else "it counts as failed"
    worker.say(f"{claim.job.cell.kind} {claim.job.cell.digest} failed ({text}, {where.name}:{where.lineno}); {ending}.")


class Heart:
    """Counts up a job's sign of life in a thread of its own while the job is worked on."""

    def __init__(self, claim: Claim, beat_s: float):
        self._claim, self._beat_s, self._over = claim, beat_s, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heart", daemon=True)

    def _beat(self) -> None:
        count, going = 0, True
        while going and not self._over.wait(self._beat_s):
            count += 1
            with contextlib.suppress(StoreError):  # a database that is away will hear the next beat
                going = self._claim.sweep.beat(self._claim, count)
        self._claim.sweep.end_thread()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _check(worker: Worker) -> None:
    if worker.stop is not None:
        worker.stop.check()


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no message"
