"""`fyi-bench evaluate`: accuracy of networks trained on a set that is a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from downstream.protocol import Protocol
from fyi_bench.config import Option, option
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.present.words import arm_title
from fyi_bench.reading import OneSetFacts, stated_facts
from fyi_bench.run.plan import Plan, Records
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.audit import KINDS, Sides, arms_of, audit_facts, audit_lines, audit_table, sides_of
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import ARCHITECTURES, SET_HELP, digest_of_runs
from fyi_bench.tasks.distill import accuracy_section
from fyi_bench.tasks.given import repeated_sets, session_of_sets
from fyi_bench.tasks.probe import Probe
from fyi_bench.tasks.robust import Robust

_READ = ("logits", "probabilities")  # what soft rows are, beside `hard`
# tasks that this command asks where an option of their name is given
_OTHERS: dict[str, Task[Any]] = {"robust": Robust(), "probe": Probe()}


@dataclass(frozen=True)
class AccuracyOptions(OneSetFacts):
    """Which set, or several of one method, on which architectures; none: the protocol's own."""

    path: tuple[Path, ...] = option(MISSING, f"{SET_HELP} Several: sets of one method.", argument="SET")
    architectures: tuple[str, ...] = ARCHITECTURES((), help="Architectures to train on it; default: the protocol's.")
    robust: bool = option(False, "Scores that soft labels and augmentation cannot inflate.")
    # of the set as it is read, and of what is compared
    labels: tuple[str, ...] = field(  # type: ignore[assignment]
        default=(), kw_only=True, metadata={"option": Option(
            "hard, own, teacher: the set and random images under each; logits, probabilities: what soft labels are."
        )}
    )  # fmt: skip
    floor: bool = option(False, "Random real images beside: as many, and as many bytes (uint8, JPEG).")
    teacher: tuple[Path, ...] = option((), "Weights of the teacher(s), as torchvision publishes them.")
    soft_labels: Path | None = option(None, "Folder of a teacher's stored labels (FKD).")
    probe: str | Any = option(
        None, "Linear probe: features of this frozen network; NAME, NAME@SIZE, or FILE.py:FUNCTION, which is run."
    )  # fmt: skip
    weights: Path | None = option(None, "Of the probe's network: FILE, or 'random'; default: trained here.")

    def __post_init__(self) -> None:
        alone = [name for name in ("robust", "probe", "soft_labels") if getattr(self, name)]
        if len(self.path) > 1 and alone:
            raise UsageError(
                f"--{alone[0].replace('_', '-')} is of one set, not of {len(self.path)}.\nName one of them."
            )
        for word in self.labels:
            if word not in (*KINDS, *_READ):
                raise UnknownNameError("kind of labels", word, (*KINDS, *_READ))
        if self.robust and (self.kinds or self.floor):
            raise UsageError("--robust asks another question than --labels and --floor.\nLeave one of them out.")
        if self.weights is not None and self.probe is None:
            raise UsageError("--weights is of the network of a linear probe.\nName it with --probe NAME.")
        trains = [*self.architectures, *self.teacher, *filter(None, [self.soft_labels])]
        if self.weights is not None and not isinstance(self.probe, str):
            raise UsageError("A module has its weights already.\nLeave weights out.")
        if self.probe is not None and (self.robust or trains or "teacher" in self.labels):
            raise UsageError(
                "--probe trains no network: --arch, --teacher, --soft-labels, --robust and labels of a teacher are of"
                " others.\nLeave them out."
            )

    @property
    def kinds(self) -> list[str]:
        """Labels under which the set is compared with random images."""
        return [word for word in self.labels if word in KINDS]

    @property
    def facts(self) -> dict[str, Any]:
        """What was stated about the set, as `load_set` takes it."""
        stated = stated_facts(self, OneSetFacts)
        del stated["labels"]
        ours = all(path.suffix == ".safetensors" or any(path.glob("*.safetensors")) for path in self.path)
        read = [word for word in self.labels if word in _READ]
        read += ["hard"] if self.labels == ("hard",) and not ours else []
        return {**stated, **({"labels": read[0]} if read else {})}


@TASKS.register("accuracy")
class Accuracy(Task[AccuracyOptions]):
    """Train networks of each architecture on the set, and test each once; `--robust` and `--probe` ask other tasks."""

    command = "evaluate"
    summary = "Accuracy of networks trained on a condensed set."
    Options = AccuracyOptions
    unused: ClassVar[Mapping[str, str]] = {"seeds": "Name a file for each set; for more networks: --set nets=N"}
    heading = "Accuracy of a set"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench evaluate res_DM_CIFAR10_ConvNet_10ipc.pt --robust",
        "fyi-bench evaluate seed0/ seed1/ seed2/ --labels hard own teacher --floor",
        "fyi-bench evaluate sre2l_ipc10/ --probe torchvision:resnet18 --weights resnet18-f37072fd.pth",
    )

    def about(self, session: Session, options: AccuracyOptions) -> Session:
        return session_of_sets(session, options.path, options.facts)

    def ignored(self, options: AccuracyOptions, given: Collection[str]) -> Mapping[str, str]:
        if options.robust:
            return dict.fromkeys(("teacher", "soft_labels"), "--robust trains its own teacher")
        found = {}
        if options.soft_labels is not None:
            found["teacher"] = "--soft-labels are a teacher's already"
        if options.kinds and "teacher" not in options.kinds:
            found["soft_labels"] = "--labels asks for no teacher's"
        return found

    def plan(self, session: Session, options: AccuracyOptions, found: Records) -> Plan:
        if other := _other(options):
            return other.plan(session, options, found)
        givens = repeated_sets(session, options.path, options.facts)
        given, of = givens[0], givens[0].image_set
        protocol = session.protocol("accuracy", given.method, size=of.shape[1], classes=of.num_classes, ipc=of.ipc)
        if options.soft_labels is not None and not options.kinds:
            protocol = replace(protocol, labels="teacher")
        names = list(options.architectures) or [protocol.eval_model]
        sides = sides_of(session, options, givens, protocol, names)
        said = [*dict.fromkeys(line for one in givens for line in one.said), *_lacking(protocol, given.path)]
        sets = given.path.name if len(givens) == 1 else f"{len(givens)} sets of {given.name or given.method}"
        what = f"{self.command or self.name} {sets} · {session.data.name}"
        return Plan("\n".join([*said, what]), protocol.name, sides.runs, details=sides)

    def answer(self, session: Session, options: AccuracyOptions, plan: Plan, found: Records) -> Record:
        if other := _other(options):
            return other.answer(session, options, plan, found)
        sides: Sides = plan.details
        tests = [run for runs in sides.tests.values() for run in runs]
        return build_record(
            self.name,
            **session.facts(sides.protocol),
            seeds=sides.seeds,
            digest=digest_of_runs(self.name, tests),
            arms=arms_of(sides, found),
            **audit_facts(sides, found),
        )

    def words(self, record: Mapping[str, Any]) -> str:
        if record["task"] in _OTHERS:
            return _OTHERS[record["task"]].words(record)
        # random images stand in the table below, beside the labels they were trained with
        arms = [arm for arm in record["arms"] if "form" not in arm][: None if "audit" not in record else 1]
        rows = [
            [
                name,
                *(words.accuracies(arm, [name])[0] for arm in arms),
                str(max(_repetitions(arm, name) for arm in arms)),
                *words.network_cost(record, name),
            ]
            for name in words.architectures_of(record)
        ]
        header = ["", *map(arm_title, arms), "networks", "time a network", "memory"]
        lines = words.lines_of(record, words.images_words(arms[0]), header, rows)
        sizes = words.size_lines(arms)
        where = words.set_lines({**record, "arms": arms})
        return "\n".join([*lines, *audit_lines(record), *sizes, *where]).rstrip("\n")

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        for name in record.get("audit", {}):
            section.table(
                f"{name}: the set and random real images, under each kind of label.", *audit_table(record, name)
            )
        accuracy_section(record, section, store)


def _other(options: AccuracyOptions) -> Task[Any] | None:
    return next((task for name, task in _OTHERS.items() if getattr(options, name) not in (None, False)), None)


def _lacking(protocol: Protocol, path: Path) -> list[str]:
    """A file is one set: nothing is picked among checkpoints, and there are no images behind an average."""
    if protocol.warm == "raw":
        raise UsageError(
            f"{protocol.name} trains on the images behind the average first, and {path.name} does not have them.\n"
            f"Run: fyi-bench distill --method ftd --protocol {protocol.name}, or evaluate with legacy-mtt."
        )
    if not protocol.checkpoints_every:
        return []
    return [f"{protocol.name} picks the best of several checkpoints; this file is taken as the only one"]


def _repetitions(arm: Mapping[str, Any], name: str) -> int:
    return sum(len(entry["values"]) for entry in arm.get("architectures", []) if entry["name"] == name)
