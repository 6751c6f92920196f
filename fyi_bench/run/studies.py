"""The Optuna studies of a queue: one for each type of run and side of the comparison.

For who looks at a dashboard: accuracies after real images and after a proxy, losses and accuracies, are not to share an
axis. Each study names what it measures, and says whether less of it is better.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import StoreError
from fyi_bench.run.run_type import run_type
from fyi_bench.run.storage import Patient, quiet_optuna
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState

# the user attribute by which a study is known to be ours; one of format 2 is a whole queue
MARK, FORMAT, _FORMATS = "fyi_bench_queue", 3, (2, 3)
_METRICS = "study:metric_names"  # where Optuna keeps the names of the values of a study


@dataclass(frozen=True)
class Study:
    """One study. choices: every value of each parameter of its runs."""

    name: str
    id: int
    choices: Mapping[str, Sequence[str | int]]


class Studies:
    """The studies of the queue of this name, as far as they were looked up or made here."""

    def __init__(self, ask: Patient, name: str):
        self._ask, self.name = ask, name
        self._known: dict[str, Study] = {}
        self._specs: dict[str, RunSpec] = {}
        self._of_trial: dict[int, Study] = {}

    @staticmethod
    def all(ask: Patient) -> list[Studies]:
        """The studies of every queue in a storage, queue by queue, oldest queue first."""
        found: dict[str, Studies] = {}
        for study in ask("get_all_studies"):
            if (mark := study.user_attrs.get(MARK)) is not None:
                name = mark.get("queue", study.study_name)
                found.setdefault(name, Studies(ask, name))._add(study._study_id, study.study_name, mark)
        return list(found.values())

    def look(self) -> None:
        """Take in those that others made since."""
        for other in Studies.all(self._ask):
            if other.name == self.name:
                self._known |= other._known

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def make(self, runs: Sequence[RunSpec]) -> None:
        """See to it that there is a study for each of the runs; of a new one they are all it will ever hold."""
        self._specs |= {spec.digest: spec for spec in runs}
        parts: dict[str, list[RunSpec]] = {}
        for spec in runs:
            parts.setdefault(self._title(spec), []).append(spec)
        for title, own in parts.items():
            if title not in self._known:
                self._make(title, own)

    def of(self, spec: RunSpec) -> Study:
        """The study of a run that `make` was told of."""
        return self._known[self._title(spec)]

    def of_trial(self, trial: FrozenTrial) -> Study:
        """The study of a trial that `trials` gave."""
        return self._of_trial[trial._trial_id]

    def trials(self, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """Our trials, in the order in which they were enqueued."""
        found: list[FrozenTrial] = []
        for study in self._known.values():
            trials = self._ask("get_all_trials", study.id, deepcopy=False, states=states)
            own = [trial for trial in trials if "run" in trial.user_attrs]
            self._of_trial |= dict.fromkeys((trial._trial_id for trial in own), study)
            found += own
        return sorted(found, key=lambda trial: trial._trial_id)

    def _title(self, spec: RunSpec) -> str:
        return " ".join(filter(None, (self.name, spec.kind, side_of(spec, self._specs))))

    def _make(self, title: str, runs: Sequence[RunSpec]) -> None:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        metric = run_type(runs[0]).metric_of(runs[0])
        direction = StudyDirection.MINIMIZE if metric.less_is_better else StudyDirection.MAXIMIZE
        with contextlib.suppress(DuplicatedStudyError), quiet_optuna():
            self._ask("create_new_study", [direction], title)
        study_id = self._ask("get_study_id_from_name", title)
        mark = self._ask("get_study_user_attrs", study_id).get(MARK)
        if mark is None:
            mark = {"format": FORMAT, "queue": self.name, "choices": _choices(runs)}
            self._ask("set_study_system_attr", study_id, _METRICS, [metric.name])
            self._ask("set_study_user_attr", study_id, MARK, mark)
        self._add(study_id, title, mark)

    def _add(self, study_id: int, title: str, mark: Mapping[str, Any]) -> None:
        if mark["format"] not in _FORMATS:
            raise StoreError(
                f"The queue '{self.name}' was made by another version of fyi-bench.\nUse the version that made it."
            )
        self._known[title] = Study(title, study_id, mark["choices"])


def side_of(spec: RunSpec, known: Mapping[str, RunSpec]) -> str:
    """Which side of a comparison a run is of: 'dm+fyi', 'real', a file's name, '' where nothing tells.

    It is that of the first run it needs where it does not tell itself; known: runs by digest.
    """
    kind = run_type(spec)
    needed = (side_of(known[digest], known) for _, digest in kind.needs(spec) if digest in known)
    return kind.side(spec) or next(needed, "")


def _choices(runs: Sequence[RunSpec]) -> dict[str, list[str | int]]:
    """Every value of each parameter of the runs, in the order of first appearance."""
    found: dict[str, dict[str | int, None]] = {}
    for spec in runs:
        for key, value in run_type(spec).parameters(spec).items():
            found.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in found.items()}
