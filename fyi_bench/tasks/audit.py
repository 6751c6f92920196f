"""`fyi-bench evaluate --labels`, `--floor`: how much of an accuracy is the images' and how much the labels'.

The set and random real images (a draw for each network) are trained on under each kind of label: the classes alone, the
labels the set comes with, and a teacher's for everything a step shows. Networks of equal seed are pairs. Several sets
of one method are repetitions of one another: each has networks and draws of its own, and the sets are the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from downstream.protocol import Protocol
from fyi_bench.errors import UsageError
from fyi_bench.present.words import bits_words, bounds, has_interval, mean_and_std, signed_points, text_table
from fyi_bench.run.plan import Records
from fyi_bench.run.teachers import Teachers
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.floor import FORMS, floor_run, likely_images
from fyi_bench.run.types.teacher import teachers_for
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, size_of_draw, size_of_parts, summary, summary_of_sets
from fyi_bench.tasks.given import GivenSet

KINDS = {
    "hard": "the classes alone",
    "own": "the set's own labels",
    "teacher": "a teacher's, at every step",
}
SET = "set"  # the subject; the others are forms of the floor
Side = tuple[str, str, str]  # subject, kind of labels, architecture


@dataclass(frozen=True)
class Sides:
    """What is compared: subjects under kinds of labels, and the networks of each.

    givens: the set, or several of one method. owners: the set behind each network of a subject, by its number. floors:
    runs that draw random images, by form, kind of labels and network.
    """

    session: Session
    givens: Sequence[GivenSet]
    owners: Sequence[int]
    protocols: Mapping[str, Protocol]
    teachers: Teachers | None
    tests: Mapping[Side, Sequence[RunSpec]]
    floors: Mapping[tuple[str, str], Sequence[RunSpec]]

    @property
    def groups(self) -> Sequence[int] | None:
        """The set of each pair, where there are several; networks on one set are pairs themselves."""
        return self.owners if len(self.givens) > 1 else None

    @property
    def seeds(self) -> list[int]:
        """The seed of each network of a subject."""
        return [run.inputs["seed"] for run in next(iter(self.tests.values()))]

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """Teachers, draws, networks."""
        found = [*(self.teachers.runs if self.teachers else ())]
        found += [run for runs in (*self.floors.values(), *self.tests.values()) for run in runs]
        return tuple({run.digest: run for run in found}.values())

    @property
    def protocol(self) -> Protocol:
        """The rules of the first kind of labels, whose name stands in the record."""
        return next(iter(self.protocols.values()))


def kinds_of(asked: Sequence[str], protocol: Protocol, soft: bool) -> dict[str, Protocol]:
    """The rules under each kind of labels; those of the protocol alone where none was asked for.

    Of a set without soft labels its own are its classes.
    """
    if not asked:
        return {protocol.labels: protocol}
    found = {}
    for kind in dict.fromkeys("hard" if kind == "own" and not soft else kind for kind in asked):
        # a set of hard labels under `hard` is what it is without the option: one run
        labels = "own" if kind == "hard" and not soft else kind
        found[kind] = replace(protocol, labels=labels)
    return found


def sides_of(
    session: Session, options: Any, givens: Sequence[GivenSet], protocol: Protocol, names: Sequence[str]
) -> Sides:
    """All runs of a question. Raises UsageError where a teacher is not what the protocol needs."""
    first = givens[0]
    soft = first.image_set.labels.ndim == 2
    kinds = kinds_of(options.kinds, protocol, soft)
    forms = [*(["images"] if options.kinds or options.floor else []), *(["uint8", "jpeg"] if options.floor else [])]
    labelled = "teacher" in kinds or (soft and "own" in kinds and forms)
    if options.teacher and not labelled:
        raise UsageError("--teacher changes nothing here: no labels of a teacher are asked for.\nAdd --labels teacher.")
    teachers = _teachers(session, options, protocol, forms, first) if labelled else None
    # (set, seed) of each network
    each = [
        (k, session.settings.seed + NETWORKS_OF_A_SET * k + net)
        for k in range(len(givens))
        for net in range(protocol.draws if forms else protocol.nets)
    ]
    floors = {
        (form, kind): [
            floor_run(session.data, form, _size(givens[k], form), seed, teachers if kind == "own" and soft else None)
            for k, seed in each
        ]
        for form in forms
        for kind in kinds
    }  # fmt: skip
    tests: dict[Side, Sequence[RunSpec]] = {}
    for kind, rules in kinds.items():
        subjects = {SET: [givens[k].reference for k, _ in each]}
        subjects |= {form: [{"cell": run.digest, "kind": "floor"} for run in floors[form, kind]] for form in forms}
        for subject, references in subjects.items():
            for name in names:
                tests[subject, kind, name] = [
                    accuracy_run(
                        session.data, reference, _images(session, givens[k], subject), rules, seed, name,
                        session.settings.precision, teachers=teachers,
                    )
                    for reference, (k, seed) in zip(references, each, strict=True)
                ]  # fmt: skip
    return Sides(session, givens, [k for k, _ in each], kinds, teachers, tests, floors)


def _images(session: Session, given: GivenSet, subject: str) -> int:
    """How many images a subject has, of draws about."""
    of = given.image_set
    return len(of) if subject == SET else likely_images(session.data, subject, _size(given, subject))


def _size(given: GivenSet, form: str) -> list[int] | int:
    return given.image_set.counts.tolist() if form == "images" else given.image_set.nbytes


def _teachers(session: Session, options: Any, protocol: Protocol, forms: Sequence[str], given: GivenSet) -> Teachers:
    models = [name.strip() for name in (protocol.teacher_model or protocol.eval_model).split(",")]
    if options.soft_labels is not None:
        if forms:
            raise UsageError(
                "Stored soft labels are of the set alone, and random images have none.\n"
                "Leave --labels and --floor out, or give a teacher's weights with --teacher."
            )
        return Teachers.of_labels(options.soft_labels)
    if options.teacher:
        if len(options.teacher) != len(models):
            raise UsageError(
                f"{len(options.teacher)} files of weights for the teachers {', '.join(models)}.\n"
                "Give one for each, or state the architectures with --set teacher_model=NAME,NAME."
            )
        return Teachers.of_files(options.teacher, models)
    shape = given.image_set.shape
    rules = session.protocol("teacher", size=shape[1], classes=given.image_set.num_classes)
    return teachers_for(session.data, rules, models, session.settings.seed, session.settings.precision)


def arms_of(sides: Sides, found: Records) -> list[dict[str, Any]]:
    """Entries of the record: the set under each kind of labels, then each form of random images likewise."""
    arms = []
    subjects = dict.fromkeys(subject for subject, _, _ in sides.tests)
    for subject in subjects:
        for kind in sides.protocols:
            made = {name: runs for (s, k, name), runs in sides.tests.items() if (s, k) == (subject, kind)}
            owners = sides.groups if subject == SET else None
            entries = [entry_of(name, [found[run.digest] for run in runs], owners) for name, runs in made.items()]
            arms.append({**_about(sides, subject, kind, found), "labels": kind, "architectures": entries})
    return arms


def entry_of(name: str, records: Sequence[Mapping[str, Any]], owners: Sequence[int] | None = None) -> dict[str, Any]:
    """Accuracies of one architecture, and what a network cost: seconds of training and testing, MiB at most.

    owners: the set of each record, where there are several.
    """
    values = [record["value"] for record in records]
    return {
        "name": name,
        **(summary(values) if owners is None else summary_of_sets(values, owners)),
        "seconds": [record["wall_s"] for record in records],
        "peak_memory_mib": max(record["peak_memory_mib"] for record in records),
    }


def _about(sides: Sides, subject: str, kind: str, found: Records) -> dict[str, Any]:
    first = sides.givens[0]
    classes = first.image_set.num_classes
    labels = _label_bytes(sides, found) if kind == "teacher" else 0
    if subject == SET:
        parts = first.image_set.parts
        if kind == "hard" and first.image_set.labels.ndim == 2:
            parts = {**parts, "labels": 8 * len(first.image_set)}
        entry = {**first.entry, **size_of_parts(parts, classes)}
        if len(sides.givens) > 1:
            entry["sets"] = [str(given.path) for given in sides.givens]
    else:
        drawn = found[sides.floors[subject, kind][0].digest]
        entry = drawn_entry(subject, drawn, classes)
    bits = entry["bits_per_class"]
    more = {part: bits[part] + 8 * labels / classes for part in ("labels", "total")}
    return {**entry, "bits_per_class": {**bits, **more}}


def drawn_entry(form: str, drawn: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """What the arm of a record says of random real images of a form, by the record of the run that drew them."""
    images = drawn["images"]
    ipc = images // classes if images % classes == 0 else None
    of = {"method": "random", "flip": "none", "ipc": ipc, "form": form, "images": images}
    return {**of, **size_of_draw(drawn, classes)}


def _label_bytes(sides: Sides, found: Records) -> int:
    """What has to be kept so that a teacher can label every step: its weights, or all stored labels."""
    teachers = sides.teachers
    if teachers is None:
        return 0
    return teachers.nbytes or sum(found[run.digest]["network_bytes"] for run in teachers.runs)


def audit_facts(sides: Sides, found: Records) -> dict[str, Any]:
    """What the record says beside its arms: the teacher, and the shares of images and labels; {} where plain."""
    facts: dict[str, Any] = {}
    if sides.teachers is not None:
        values = [found[run.digest]["value"] for run in sides.teachers.runs]
        facts["teacher"] = {"architectures": list(sides.teachers.models), "values": values}
    if sides.floors:
        facts["audit"] = {name: _shares(sides, name, found) for name in {n: None for _, _, n in sides.tests}}
    return facts


def _shares(sides: Sides, name: str, found: Records) -> dict[str, Any]:
    """Paired differences on one architecture. image: the set minus random images of equal labels, by form and kind.

    label: of a kind minus the first kind, of the set and of random images. whole: the set under a kind minus random
    images under the first; both: what neither images nor labels explain alone.
    """
    from fyi_bench.stats import paired_difference

    values = {
        (subject, kind): [found[run.digest]["value"] for run in runs]
        for (subject, kind, n), runs in sides.tests.items()
        if n == name
    }
    first, *others = sides.protocols
    forms, of = list(dict.fromkeys(form for form, _ in sides.floors)), sides.groups
    image = {
        form: {kind: paired_difference(values[SET, kind], values[form, kind], groups=of) for kind in sides.protocols}
        for form in forms
    }  # fmt: skip
    label, whole, both = {}, {}, {}
    for kind in others:
        # each draw is its own, so there the networks are the pairs
        label[kind] = {
            subject: paired_difference(values[subject, kind], values[subject, first], groups=groups)
            for subject, groups in ((SET, of), ("images", None))
        }  # fmt: skip
        whole[kind] = paired_difference(values[SET, kind], values["images", first], groups=of)
        alone = [
            a - b - (c - d)
            for a, b, c, d in zip(
                values[SET, kind], values[SET, first], values["images", kind], values["images", first], strict=True
            )
        ]
        both[kind] = paired_difference(alone, [0.0] * len(alone), groups=of)
    return {"first": first, "image": image, "label": label, "whole": whole, "both": both}


# words -------------------------------------------------------------------------------------------------------------


def audit_lines(record: Mapping[str, Any]) -> list[str]:
    """The table of each architecture, and what its differences say; [] where nothing was compared."""
    lines: list[str] = []
    for name, shares in record.get("audit", {}).items():
        lines += [*([f"{name}"] if len(record["audit"]) > 1 else []), *text_table(*audit_table(record, name)), ""]
        first = shares["first"]
        for kind, whole in shares["whole"].items():
            label = shares["label"][kind]
            lines += [
                f"labels {kind}: {margin(whole)} over random images with labels {first}, of which",
                f"  image   {margin(shares['image']['images'][first])}   the set over random images, labels {first}",
                f"  label   {margin(label['images'])}   labels {kind} over {first}, random images",
                f"  both    {margin(shares['both'][kind])}   what the labels add to the set beyond that",
                "",
            ]
    if "teacher" in record:
        teacher = record["teacher"]
        names = zip(teacher["architectures"], teacher["values"] or [None] * len(teacher["architectures"]), strict=True)
        told = ", ".join(f"{name}{'' if value is None else f' ({100 * value:.1f} %)'}" for name, value in names)
        lines += [f"teacher  {told or 'labels stored with the set'}", ""]
    return lines


def audit_table(record: Mapping[str, Any], name: str) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of one architecture: a row a subject and kind of labels."""
    image = record["audit"][name]["image"]
    header = ["", "labels", "bits a class", "accuracy, %", "set − this [95 %]"]
    rows = []
    for arm in record["arms"]:
        entry = next(each for each in arm["architectures"] if each["name"] == name)
        form = arm.get("form")
        sets = len(arm.get("sets", ()))
        title = FORMS[form] if form else f"the {sets} sets" if sets else "the set"
        less = margin(image[form][arm["labels"]]) if form else ""
        rows.append([title, arm["labels"], bits_words(arm["bits_per_class"]["total"]), mean_and_std(entry), less])
    return header, rows


def margin(difference: Mapping[str, Any]) -> str:
    """'+1.2 [−0.3, +2.7]', without the interval where there are too few pairs."""
    return signed_points(difference["mean"]) + (bounds(difference, signed_points) if has_interval(difference) else "")
