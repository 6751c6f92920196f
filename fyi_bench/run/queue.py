"""The queue of runs: Optuna studies, shared by any number of workers; results are in the store.

Each run is a trial with fixed parameters that holds its spec as a user attribute. States of a run are those of its
trial: WAITING, RUNNING (somebody has it), COMPLETE (the record is in the store), FAIL (diverged, tried too often, or
in need of a run that failed). A run waits until those it needs are no longer open in the queue. Workers take trials by
the storage itself and never ask a study's sampler, which would invent one. They take them in the order in which they
were enqueued, whichever study (fyi_bench.run.studies) they stand in.

A worker's sign of life is a number that it counts up in its trial. A run is brought back when that number has stood
still for `grace_s` by the clock of whoever looks (clocks that jump or differ do not matter), or at once when its
worker was a process of this machine that is gone. Bringing back is one change of state, so there is no moment at
which a kill could lose a run. A worker that was only slow may then meet its successor: the store's lock lets one
compute and the other read.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.run.holder import is_gone, this_process, worker_words
from fyi_bench.run.run_type import run_type
from fyi_bench.run.storage import Patient, first_line, open_storage, passing, shown
from fyi_bench.run.studies import Studies
from fyi_bench.store.run_dir import DIVERGED
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BEAT_S, GRACE_S = 10.0, 60.0
MAX_FAILURES = 3
_RETRY_S = 1.0
_LOOK_S, _LOOK_SHARE = 2.0, 0.05  # bringing back looks at running trials this often, for this share of the time


@dataclass(frozen=True)
class Claim:
    """A run that a worker has taken. threads: how many it is to be computed with, None where that is free.

    study: name of the study that it stands in.
    """

    queue: Queue
    study: str
    trial_id: int
    spec: RunSpec
    threads: int | None
    needs: tuple[tuple[str, str], ...]
    holder: str


@dataclass(frozen=True)
class Counts:
    """Runs by state."""

    waiting: int = 0
    running: int = 0
    complete: int = 0
    failed: int = 0

    @property
    def open(self) -> int:
        """Runs that are not finished."""
        return self.waiting + self.running


class Queue:
    """The runs of one command in a storage. Made by `Queue.open`; any number of processes may have it open."""

    def __init__(self, ask: Patient, studies: Studies):
        self._ask, self._studies, self.name = ask, studies, studies.name
        self._waiting: deque[FrozenTrial] = deque()
        self._state: dict[str, str] = {}  # digest -> state, at the last look
        self._seen: dict[int, tuple[Any, float]] = {}  # running trial -> its sign of life, and since when it stands
        self._next_look = -math.inf

    @staticmethod
    def open(ask: Patient, name: str, runs: Sequence[RunSpec] = ()) -> Queue:
        """The queue of this name, its studies made when missing. runs: all it will ever hold, for what they show."""
        studies = next((each for each in Studies.all(ask) if each.name == name), None) or Studies(ask, name)
        studies.make(runs)
        return Queue(ask, studies)

    @staticmethod
    def all(ask: Patient, name: str | None = None) -> list[Queue]:
        """The queues of a storage in the order of their making, or the one of this name (or with a study of it)."""
        there = Studies.all(ask)
        found = [Queue(ask, each) for each in there if name in (None, each.name) or str(name) in each]
        if name is not None and not found:
            names = ", ".join(each.name for each in there) or "none"
            raise StoreError(f"The storage {ask.shown_url} has no queue '{name}'.\nIt has: {names}.")
        return found

    # filling ---------------------------------------------------------------------------------------------------

    def enqueue(
        self, runs: Sequence[RunSpec], store: Store, threads: Callable[[RunSpec], int | None] = lambda spec: None,
        retried: Callable[[RunSpec], bool] = lambda spec: False,
    ) -> int:  # fmt: skip
        """Add the runs that are neither finished in the store nor under way here, in this order; returns how many.

        One that failed for other reasons than divergence is tried again; as is one whose record is gone. Failures of
        one under way count no more: who was stopped three times and asks again is not to be told that it failed.
        threads(spec): what it is to be computed with. retried(spec): whether it is tried again though it diverged.
        """
        from optuna.distributions import CategoricalDistribution
        from optuna.trial import TrialState, create_trial

        trials, added = self._trials(), 0
        self._studies.make(runs)
        open_trials = {digest_of(trial): trial for trial in trials if trial.state.name in ("WAITING", "RUNNING")}
        for spec in runs:
            if spec.digest in open_trials:
                self._forget_failures(open_trials[spec.digest])
        known = set(open_trials)
        diverged = {digest_of(trial) for trial in trials if "diverged" in trial.user_attrs}
        for spec in runs:
            over = store.has(spec) if retried(spec) else finished(store, spec) or spec.digest in diverged
            if over or spec.digest in known:
                continue
            known.add(spec.digest)
            kind = run_type(spec)
            study = self._studies.of(spec)
            choices = {name: tuple(study.choices.get(name, ())) for name in kind.parameters(spec)}
            params = {name: value for name, value in kind.parameters(spec).items() if value in choices[name]}
            trial = create_trial(
                state=TrialState.WAITING,
                params=params,
                distributions={name: CategoricalDistribution(choices[name]) for name in params},
                user_attrs={"digest": spec.digest, "title": kind.title(spec), "run": _to_json(spec, threads(spec))},
                system_attrs={"fixed_params": kind.parameters(spec)},
            )
            self._ask("create_new_trial", study.id, trial)
            added += 1
        return added

    def _forget_failures(self, trial: FrozenTrial) -> None:
        if trial.user_attrs.get("failures"):
            with _unless_over():
                self._ask("set_trial_user_attr", trial._trial_id, "failures", [])

    # taking ----------------------------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """Take the next run that waits for nothing, or None when there is none now. No two workers get the same."""
        for look in (False, True):
            if look:
                self._look()
            for trial in list(self._waiting):
                if not self._blocked(trial) and (claim := self._take(trial)) is not None:
                    return claim
        return None

    def claim_alike(self, key: str, count: int, key_of: Callable[[RunSpec], str]) -> list[Claim]:
        """Take up to `count` further waiting runs of this key."""
        found: list[Claim] = []
        for trial in list(self._waiting) if count > 0 else []:
            if len(found) < count and not self._blocked(trial) and key_of(_from_json(trial)) == key:
                claim = self._take(trial)
                found += [claim] if claim is not None else []
        return found

    def _look(self) -> None:
        from optuna.trial import TrialState

        self._studies.look()
        trials = self._trials()
        self._state = {digest_of(trial): trial.state.name for trial in trials}
        self._waiting = deque(trial for trial in trials if trial.state is TrialState.WAITING)
        for trial in list(self._waiting):
            broken = [need for need in trial.user_attrs["run"]["needs"] if self._state.get(need[1]) == "FAIL"]
            if broken:
                self._waiting.remove(trial)
                self._return(trial, f"it needs {broken[0][0]} {broken[0][1]}, which failed", last=True)

    def _blocked(self, trial: FrozenTrial) -> bool:
        """Whether a run it needs is not finished, as far as the last look tells."""
        return any(self._state.get(digest) in ("WAITING", "RUNNING") for _, digest in trial.user_attrs["run"]["needs"])

    def _take(self, trial: FrozenTrial) -> Claim | None:
        from optuna.trial import TrialState

        self._waiting.remove(trial)
        with _unless_over():
            if self._ask("set_trial_state_values", trial._trial_id, TrialState.RUNNING):
                return self._taken(trial)
        return None

    def _taken(self, trial: FrozenTrial) -> Claim:
        holder, run = this_process(), trial.user_attrs["run"]
        needs = tuple((kind, digest) for kind, digest in run["needs"])
        study = self._studies.of_trial(trial).name
        claim = Claim(self, study, trial._trial_id, _from_json(trial), run["threads"], needs, holder)
        self._tell(claim, "holder", holder)
        return claim

    def beat(self, claim: Claim, count: int) -> bool:
        """Give a sign of life, without waiting for a database that is away; False when the run is over."""
        with _unless_over():
            self._ask.once("set_trial_user_attr", claim.trial_id, "beat", [claim.holder, count])
            return True
        return False

    def plot(self, claim: Claim, step: int, value: float) -> None:
        """A point of the run's curve in the dashboard, without waiting for a database that is away."""
        with _unless_over():
            self._ask.once("set_trial_intermediate_value", claim.trial_id, step, value)

    def end_thread(self) -> None:
        """Close what the storage keeps open for the calling thread."""
        self._ask.once("remove_session")

    def complete(self, claim: Claim, value: float | None, facts: Mapping[str, Any] | None = None) -> None:
        """The record is in the store. value: what the dashboard plots; facts: what it lists beside."""
        from optuna.trial import TrialState

        for key, fact in (facts or {}).items():
            self._tell(claim, key, fact)
        plotted = [float(value)] if isinstance(value, int | float) and math.isfinite(value) else None
        self._end(claim, TrialState.COMPLETE, plotted)

    def fail(self, claim: Claim, reason: str) -> None:
        """The run's numbers diverged: it is over without a record, and trying again would end the same."""
        from optuna.trial import TrialState

        self._tell(claim, "diverged", reason)
        self._end(claim, TrialState.FAIL)

    def put_back(self, claim: Claim, failure: str | None = None) -> bool:
        """Let somebody take it again; a `failure` counts, and after MAX_FAILURES the run fails: then False."""
        trial = self._ask("get_trial", claim.trial_id)
        return self._return(trial, failure)

    # looking after it ------------------------------------------------------------------------------------------

    def bring_back(self, grace_s: float = GRACE_S) -> list[str]:
        """Make runs of dead workers wait again (see the module); returns a line for each. Call it now and then."""
        from optuna.trial import TrialState

        now = time.monotonic()
        if now < self._next_look:
            return []
        lines, seen = [], {}
        for trial in self._trials(TrialState.RUNNING):
            holder = trial.user_attrs.get("holder")
            life = (holder, trial.user_attrs.get("beat"))
            before, since = self._seen.get(trial._trial_id, (None, now))
            seen[trial._trial_id] = (life, since if before == life else now)
            if is_gone(holder) or (before == life and now - since >= grace_s):
                died = f"its worker {worker_words(holder)} died"
                seen.pop(trial._trial_id)
                with _unless_over():  # another brought it back, and it is done by now
                    back = self._return(trial, self._uncounted(trial, holder, died))
                    lines.append(f"Run {trial.number}: {died}; {'it waits again' if back else 'given up'}.")
        self._seen = seen
        ended = time.monotonic()
        self._next_look = now + min(grace_s, max(_LOOK_S, (ended - now) / _LOOK_SHARE))
        return lines

    def counts(self) -> Counts:
        """Runs by state now; one that was tried anew counts once, in its latest state."""
        latest = {digest_of(trial): trial.state.name for trial in self._trials()}
        states = list(latest.values())
        return Counts(*(states.count(name) for name in ("WAITING", "RUNNING", "COMPLETE", "FAIL")))

    def has_open(self) -> bool:
        """Whether some run waits or is worked on."""
        from optuna.trial import TrialState

        return bool(self._trials(TrialState.WAITING, TrialState.RUNNING))

    def titles(self) -> dict[str, str]:
        """Digest of each run -> what it is, for people."""
        return {digest_of(trial): trial.user_attrs["title"] for trial in self._trials()}

    def failed(self) -> list[tuple[str, str, FrozenTrial]]:
        """(type, digest, trial) of each run that failed at its latest try."""
        latest = {digest_of(trial): trial for trial in self._trials()}
        return [(t.user_attrs["run"]["kind"], d, t) for d, t in latest.items() if t.state.name == "FAIL"]

    def failures(self) -> dict[str, str]:
        """Digest of each failed run -> why."""
        return {digest: reason_of(trial) for _, digest, trial in self.failed()}

    def _uncounted(self, trial: FrozenTrial, holder: str | None, failure: str) -> str | None:
        """The failure, or None where another who looks counted this holder's before it could finish bringing back."""
        if holder is not None and trial.user_attrs.get("counted") == holder:
            return None
        self._ask("set_trial_user_attr", trial._trial_id, "counted", holder)
        return failure

    def _return(self, trial: FrozenTrial, failure: str | None, last: bool = False) -> bool:
        """Let a run wait again; a failure counts, and the last one ends it. Whether it waits."""
        from optuna.trial import TrialState

        failures = [*trial.user_attrs.get("failures", []), *([failure] if failure else [])]
        state = TrialState.FAIL if last or len(failures) >= MAX_FAILURES else TrialState.WAITING
        with _unless_over():  # the worker finished after all
            if failure:
                self._ask("set_trial_user_attr", trial._trial_id, "failures", failures)
            # cleared first, or whoever takes it next would for an instant look like the one that left
            self._ask("set_trial_user_attr", trial._trial_id, "holder", None)
            self._ask("set_trial_state_values", trial._trial_id, state)
        return state is TrialState.WAITING

    def _trials(self, *states: Any) -> list[FrozenTrial]:
        return self._studies.trials(states or None)

    def _tell(self, claim: Claim, key: str, value: Any) -> None:
        with _unless_over():
            self._ask("set_trial_user_attr", claim.trial_id, key, value)

    def _end(self, claim: Claim, state: Any, values: list[float] | None = None) -> None:
        with _unless_over():  # its successor was faster, or the answer was lost
            self._ask("set_trial_state_values", claim.trial_id, state, values)


def connect(
    url: str, check: Callable[[], None], say: Callable[[str], None], patience_s: float = 0.0
) -> Patient:  # fmt: skip
    """The storage at this URL, asked with patience. patience_s: how long a server that is away now is waited for."""
    began, told = time.monotonic(), False
    while True:
        try:
            return Patient(open_storage(url), shown(url), check, say)
        except StoreError as error:
            if error.__cause__ is None or not passing(error.__cause__) or time.monotonic() - began > patience_s:
                raise
            if not told:
                say(f"Waiting for the storage {shown(url)} ({first_line(error.__cause__)}).")
            told = True
        check()
        time.sleep(_RETRY_S)


def _unless_over() -> contextlib.suppress:
    """What is told of a run inside is left where the run is over."""
    from optuna.exceptions import UpdateFinishedTrialError

    return contextlib.suppress(UpdateFinishedTrialError)


def finished(store: Store, spec: RunSpec) -> bool:
    """Whether the store has the run's record, or knows that it diverges."""
    return store.has(spec) or (store.folder(spec) / DIVERGED).exists()


def digest_of(trial: FrozenTrial) -> str:
    """Digest of the run a trial stands for."""
    return str(trial.user_attrs["digest"])


def reason_of(trial: FrozenTrial) -> str:
    """Why a trial failed."""
    return trial.user_attrs.get("diverged") or "; ".join(trial.user_attrs.get("failures", ["unknown"]))


def _to_json(spec: RunSpec, threads: int | None) -> dict[str, Any]:
    needs = [list(need) for need in run_type(spec).needs(spec)]
    return {"kind": spec.kind, "inputs": spec.inputs, "notes": spec.notes, "threads": threads, "needs": needs}


def _from_json(trial: FrozenTrial) -> RunSpec:
    spec = RunSpec(*(trial.user_attrs["run"][key] for key in ("kind", "inputs", "notes")))
    if spec.digest != digest_of(trial):
        raise StoreError(f"The queue is damaged: {digest_of(trial)} is another run.\nRemove its file.")
    return spec
