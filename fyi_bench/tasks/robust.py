"""`fyi-bench evaluate SET --robust`: label-robust and augmentation-robust scores of a set that is a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from downstream.protocol import Protocol
from fyi_bench.errors import UsageError
from fyi_bench.present.words import (
    HOLE,
    bounds,
    mean_and_std,
    percent,
    protocol_words,
    seconds_words,
    size_words,
    text_table,
)
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.robust import TEST, VALIDATION, Subject, robust_run
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import digest_of_runs, summary
from fyi_bench.tasks.given import GivenSet, repeated_sets

if TYPE_CHECKING:
    from downstream.robust_scores import Rules, Scores, Treatment

Searches = dict["tuple[Treatment, float]", RunSpec]
Tests = dict["tuple[Treatment, int]", RunSpec]
UNITS = "accuracies, recovery, improvement and scores are fractions; both scores lie in [0, 1], 1 is best"
# key of a record's arm -> what people read
SCORES = {
    "label_robust": "label-robust score",
    "augmentation_robust": "augmentation-robust score",
    "recovery": "hard-label recovery (real − set; 0 is best)",
    "improvement": "improvement over random",
}
TREATMENTS = {
    "real-hard": "real images, hard labels",
    "set-hard": "the set, hard labels",
    "set-any": "the set, its own labels",
    "random-any": "random images, likewise",
    "set-plain": "the set, not augmented",
    "random-plain": "random images, not augmented",
}
SCORE_HEADER = ("", "%", "95 % interval")
ACCURACY_HEADER = ("", "accuracy, %", "step size", "on images set aside, %", "time a network")


@TASKS.register("robust")
class Robust(Task[Any]):
    """Search a step size for every arm, train its networks with it, and test each once. It takes `evaluate`'s options.

    Random images have the labels of a network trained on real ones, where the set's are soft.
    """

    command = ""
    summary = "Scores of a set that labels and augmentation cannot inflate."
    heading = "Robust scores"

    def plan(self, session: Session, options: Any, found: Records) -> Plan:
        q = _Question.of(session, options)
        searches, _, tests = q.known(found)
        planned = {run.digest for run in (*searches.values(), *tests.values())}
        missing = [arm for arm in q.arms if (arm, q.seeds[0]) not in tests]
        later = [run for arm in missing for run in q.likely(arm) if run.digest not in planned]
        title = f"robust scores of {q.given.path.name} · {session.data.name} · real side: {q.real_words}"
        return Plan(
            "\n".join([*q.given.said, title]),
            q.protocol.name,
            (*searches.values(), *tests.values()),
            open=bool(missing),
            later=tuple(later),
            details=q,
        )

    def answer(self, session: Session, options: Any, plan: Plan, found: Records) -> Record:
        from downstream.robust_scores import robust_scores

        q: _Question = plan.details
        searches, lrs, tests = q.known(found)
        records = {arm: [found[tests[arm, seed].digest] for seed in q.seeds] for arm in q.arms}
        scores = [
            robust_scores({arm.name: same[k]["value"] for arm, same in records.items()}, q.rules)
            for k in range(len(q.seeds))
        ]
        accuracies = {}
        for arm, same in records.items():
            judged = {f"{lr:g}": found[searches[arm, lr].digest]["value"] for lr in q.rules.lrs}
            accuracies[arm.name] = {
                **summary([record["value"] for record in same]),
                "lr": lrs[arm],
                "validation": judged,
                "seconds": [record["wall_s"] for record in same],
            }
        entry = {
            **q.given.entry,
            "labels": "soft" if q.subject.soft else "hard",
            "model": q.protocol.eval_model,
            "accuracies": accuracies,
            **{one.name: _estimate(scores, one.name) for one in fields(scores[0])},
            "peak_memory_mib": max(found[run.digest]["peak_memory_mib"] for run in tests.values()),
        }
        return build_record(
            "robust",
            **session.facts(q.protocol),
            seeds=q.seeds,
            digest=digest_of_runs("robust", [*searches.values(), *tests.values()]),
            arms=[entry],
            rules=asdict(q.rules),
            units=UNITS,
            reference=q.real_words,
        )

    def words(self, record: Mapping[str, Any]) -> str:
        arm = record["arms"][0]
        return "\n".join([
            f"{record['dataset']} · {arm['model']} · protocol {protocol_words(record['protocol'])} · in % of 1",
            "",
            *text_table(SCORE_HEADER, _score_rows(arm)),
            "",
            *text_table(ACCURACY_HEADER, _accuracy_rows(arm)),
            "",
            f"step sizes tried for every arm: {_rules_words(record)}, which no network was trained on",
            f"real side: {record['reference']}; random images: as many of each class as the set has",
            f"cost: {_cost_words(arm)}",
        ])  # fmt: skip

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        arm = record["arms"][0]
        robust = (f"{name} {mean_and_std(arm[key])}" for key, name in SCORES.items() if key.endswith("_robust"))
        section.headline = f"{', '.join(robust)} (in %)"
        caption = f"{arm['model']}, in % of 1: both scores lie between 0 and 100. {_cost_words(arm)}."
        section.table(caption, SCORE_HEADER, _score_rows(arm))
        caption = f"Step sizes tried for every arm: {_rules_words(record)}, which are set aside."
        section.table(f"{caption} Real side: {record['reference']}.", ACCURACY_HEADER, _accuracy_rows(arm))
        section.sets(record, store)


@dataclass(frozen=True)
class _Question:
    """The set, how its networks and those of real images are trained, and the arms that are compared."""

    session: Session
    given: GivenSet
    subject: Subject
    protocol: Protocol
    real_protocol: Protocol
    rules: Rules
    arms: Sequence[Treatment]

    @classmethod
    def of(cls, session: Session, options: Any) -> _Question:
        """Raises UsageError for several architectures, or a set of another size."""
        from downstream.robust_scores import TREATMENTS, rules_of
        from downstream.training import training_space

        if len(options.architectures) > 1:
            raise UsageError("Robust scores are of one architecture at a time.\nGive one --arch.")
        [given] = repeated_sets(session, options.path, options.facts)
        protocol, real = session.protocol("robust"), session.protocol("robust-real")
        if options.architectures:
            protocol, real = (replace(p, eval_model=options.architectures[0]) for p in (protocol, real))
        image_set = given.image_set
        subject = Subject(
            {"digest": image_set.digest},
            str(given.path),
            tuple(image_set.counts.tolist()),
            image_set.labels.ndim == 2,
            training_space(image_set, session.data.space) != session.data.space,
        )
        return cls(session, given, subject, protocol, real, rules_of(session.settings.protocol), TREATMENTS)

    @property
    def seeds(self) -> list[int]:
        """One a repetition: of the networks, and of the choice of random images."""
        return [self.session.settings.seed + k for k in range(self.protocol.nets)]

    @property
    def real_words(self) -> str:
        """How the real side is made."""
        images = self.rules.real_images
        return f"{self.real_protocol.epochs} epochs on {f'{images:,}' if images else 'all'} images"

    def known(self, found: Records) -> tuple[Searches, dict[Treatment, float], Tests]:
        """What can be planned with these results: searches, the step sizes they found, and the tests with these.

        The arms whose labels a network of real images gives come when it is trained.
        """
        from downstream.robust_scores import best_lr

        searches: Searches = {}
        lrs: dict[Treatment, float] = {}
        tests: Tests = {}
        teacher = ""
        for arm in self.arms:  # the one of real images is the first
            if self.subject.soft and arm.subject == "random" and arm.labels != "hard" and teacher not in found:
                continue
            mine = {lr: self.run(arm, lr, self.seeds[0], VALIDATION, teacher) for lr in self.rules.lrs}
            searches |= {(arm, lr): run for lr, run in mine.items()}
            if all(run.digest in found for run in mine.values()):
                lrs[arm] = best_lr({lr: found[run.digest]["value"] for lr, run in mine.items()})
                tests |= {(arm, seed): self.run(arm, lrs[arm], seed, TEST, teacher) for seed in self.seeds}
            if arm.subject == "real" and arm in lrs:
                teacher = tests[arm, self.seeds[0]].digest
        return searches, lrs, tests

    def likely(self, arm: Treatment) -> list[RunSpec]:
        """Stand-ins for the runs of an arm that cannot be planned yet."""
        lrs = self.rules.lrs
        searches = [self.run(arm, lr, self.seeds[0], VALIDATION) for lr in lrs]
        return [*searches, *(self.run(arm, lrs[0], seed, TEST) for seed in self.seeds)]

    def run(self, arm: Treatment, lr: float, seed: int, tested: str, teacher: str = "") -> RunSpec:
        """One network of an arm. tested: on the images set aside, or on test images."""
        from downstream.robust_scores import settings_of

        s, base = self.session, self.real_protocol if arm.subject == "real" else self.protocol
        return robust_run(
            s.data, self.subject, arm, settings_of(arm, base, lr), self.rules, seed, tested, s.settings.precision,
            teacher,
        )  # fmt: skip


def _estimate(scores: Sequence[Scores], name: str) -> dict[str, Any]:
    """values, mean and std over the repetitions, and the interval of the mean."""
    from fyi_bench.stats import mean_interval

    values = [asdict(one)[name] for one in scores]
    interval = mean_interval(values)
    return {**summary(values), "low": interval["low"], "high": interval["high"]}


def _score_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """A row a score, under `SCORE_HEADER`."""
    return [[name, mean_and_std(arm[key]), _interval(arm[key])] for key, name in SCORES.items()]


def _accuracy_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """A row a treatment, under `ACCURACY_HEADER`."""
    rows = []
    for name, entry in arm["accuracies"].items():
        lr, seconds = f"{entry['lr']:g}", sum(entry["seconds"]) / len(entry["seconds"])
        rows.append(
            [TREATMENTS[name], mean_and_std(entry), lr, percent(entry["validation"][lr]), seconds_words(seconds)]
        )
    return rows


def _rules_words(record: Mapping[str, Any]) -> str:
    rules = record["rules"]
    tried = ", ".join(f"{lr:g}" for lr in rules["lrs"])
    return f"{tried}; judged on {100 * rules['validation']:g} % of the train images"


def _cost_words(arm: Mapping[str, Any]) -> str:
    memory = f"{arm['peak_memory_mib']:.0f} MiB at most while training"
    return f"{size_words(arm)} ({arm['labels']} labels), {memory}"


def _interval(entry: Mapping[str, Any]) -> str:
    return bounds(entry, percent).lstrip() or HOLE
