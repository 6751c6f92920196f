"""`fyi-bench evaluate SET --robust`: label-robust and augmentation-robust scores of a set that is a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from downstream.robust_scores import ARMS, Arm, Rules, Scores, best_lr, describe, robust_scores, rules_of, settings_of
from fyi_bench.run.types.robust import TEST, VALIDATION, Subject, robust_cell
from fyi_bench.session import Session
from fyi_bench.stats import mean_interval
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import digest_of_cells, summary
from fyi_bench.tasks.evaluate import check_fits, own_file

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from downstream.protocol import Protocol

UNITS = "accuracies, recovery, improvement and scores are fractions; both scores lie in [0, 1], 1 is best"


def robust_job(session: Session, path: str | Path, architectures: Sequence[str] = ()) -> dict[str, Any]:
    """Search a step size for every arm, train its networks with it, test each once, return the record.

    architectures: at most one name (default: the protocol's). Raises UsageError for more, or a set of another size.
    """
    path, image_set = own_file(session, Path(path))
    check_fits(image_set, session.data)
    session.check_overrides([])
    plan = _Plan.of(session, path, image_set, architectures)
    session.announce(
        f"robust scores of {path.name} · {session.data.name} · real side: {plan.real_words}",
        [*plan.searches(ARMS).values(), *plan.tests(ARMS, dict.fromkeys(ARMS, plan.rules.lrs[0])).values()],
        plan.protocol.name,
    )
    # real images first: their network is the teacher of random ones where labels are soft
    real = [arm for arm in ARMS if arm.subject == "real"]
    first = plan.measure(real, "all real images")
    plan = replace(plan, teacher=first.cells[real[0], plan.seeds[0]].digest)
    rest = plan.measure([arm for arm in ARMS if arm.subject != "real"], "the set and random images")
    return _record(session, plan, path, image_set, first.joined(rest))


@dataclass(frozen=True)
class _Measured:
    """What was found for some arms: step sizes, accuracies on the images set aside, cells and records of the tests."""

    lrs: dict[Arm, float]
    validation: dict[Arm, dict[float, float]]
    cells: dict[tuple[Arm, int], RunSpec]
    records: dict[str, Mapping[str, Any]]
    searched: list[RunSpec]

    def joined(self, other: _Measured) -> _Measured:
        """Both."""
        return _Measured(
            self.lrs | other.lrs,
            self.validation | other.validation,
            self.cells | other.cells,
            self.records | other.records,
            self.searched + other.searched,
        )


@dataclass(frozen=True)
class _Plan:
    session: Session
    subject: Subject
    protocol: Protocol
    real_protocol: Protocol
    rules: Rules
    teacher: str = ""

    @classmethod
    def of(cls, session: Session, path: Path, image_set: ImageSet, architectures: Sequence[str]) -> _Plan:
        from downstream.training import training_space
        from fyi_bench.errors import UsageError

        if len(architectures) > 1:
            raise UsageError("Robust scores are of one architecture at a time.\nGive one --arch.")
        protocol, real = session.protocol("robust"), session.protocol("robust-real")
        if architectures:
            protocol, real = (replace(p, eval_model=architectures[0]) for p in (protocol, real))
        subject = Subject(
            {"digest": image_set.digest},
            str(path),
            tuple(image_set.counts.tolist()),
            image_set.labels.ndim == 2,
            training_space(image_set, session.data.space) != session.data.space,
        )
        return cls(session, subject, protocol, real, rules_of(session.settings.protocol))

    @property
    def seeds(self) -> list[int]:
        """One a repetition: of the networks, and of the choice of random images."""
        return [self.session.settings.seed + k for k in range(self.protocol.nets)]

    @property
    def real_words(self) -> str:
        """How the real side is made."""
        images = self.rules.real_images
        return f"{self.real_protocol.epochs} epochs on {f'{images:,}' if images else 'all'} images"

    def searches(self, arms: Iterable[Arm]) -> dict[tuple[Arm, float], RunSpec]:
        """A network for every step size of every arm, tested on the images set aside."""
        seed = self.session.settings.seed
        return {(arm, lr): self._cell(arm, lr, seed, VALIDATION) for arm in arms for lr in self.rules.lrs}

    def tests(self, arms: Iterable[Arm], lrs: Mapping[Arm, float]) -> dict[tuple[Arm, int], RunSpec]:
        """Every repetition of every arm with its step size."""
        return {(arm, seed): self._cell(arm, lrs[arm], seed, TEST) for arm in arms for seed in self.seeds}

    def measure(self, arms: Sequence[Arm], what: str) -> _Measured:
        """Search, then test."""
        searched = self.searches(arms)
        found = self.session.compute([(f"step sizes, {what}", list(searched.values()))])
        validation: dict[Arm, dict[float, float]] = {arm: {} for arm in arms}
        for (arm, lr), cell in searched.items():
            validation[arm][lr] = found[cell.digest]["value"]
        lrs = {arm: best_lr(values) for arm, values in validation.items()}
        cells = self.tests(arms, lrs)
        records = self.session.compute([(f"testing, {what}", list(cells.values()))])
        return _Measured(lrs, validation, cells, records, list(searched.values()))

    def _cell(self, arm: Arm, lr: float, seed: int, tested: str) -> RunSpec:
        s, base = self.session, self.real_protocol if arm.subject == "real" else self.protocol
        return robust_cell(
            s.data, self.subject, arm, settings_of(arm, base, lr), self.rules, seed, tested, s.settings.precision,
            self.teacher,
        )  # fmt: skip


def _record(session: Session, plan: _Plan, path: Path, image_set: ImageSet, found: _Measured) -> dict[str, Any]:
    values = {arm: [found.records[found.cells[arm, seed].digest] for seed in plan.seeds] for arm in ARMS}
    scores = [
        robust_scores({arm.name: values[arm][k]["value"] for arm in ARMS}, plan.rules) for k in range(len(plan.seeds))
    ]
    arm_entry = {
        "method": str(image_set.provenance.get("method", "file")),
        "flip": str(image_set.provenance.get("flip", "unknown")),
        "ipc": image_set.ipc,
        "set": str(path),
        "set_digest": image_set.digest,
        "set_bytes": image_set.nbytes,
        "labels": "soft" if plan.subject.soft else "hard",
        "model": plan.protocol.eval_model,
        "accuracies": {arm.name: _accuracy_entry(arm, values[arm], found) for arm in ARMS},
        **{name: _estimate(scores, name) for name in Scores.__dataclass_fields__},
        "peak_memory_mib": max(r["peak_memory_mib"] for r in found.records.values()),
    }
    cells = [*found.searched, *found.cells.values()]
    return build_record(
        "robust",
        **session.facts(plan.protocol),
        seeds=plan.seeds,
        digest=digest_of_cells("robust", cells),
        arms=[arm_entry],
        rules=describe(plan.rules),
        units=UNITS,
        reference=plan.real_words,
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def _accuracy_entry(arm: Arm, records: Sequence[Mapping[str, Any]], found: _Measured) -> dict[str, Any]:
    return {
        **summary([record["value"] for record in records]),
        "lr": found.lrs[arm],
        "validation": {f"{lr:g}": value for lr, value in found.validation[arm].items()},
        "seconds": [record["wall_s"] for record in records],
    }


def _estimate(scores: Sequence[Scores], name: str) -> dict[str, Any]:
    """values, mean and std over the repetitions, and the interval of the mean."""
    values = [asdict(one)[name] for one in scores]
    interval = mean_interval(values)
    return {**summary(values), "low": interval["low"], "high": interval["high"]}
