"""`fyi-bench evaluate SET --probe NETWORK`: logistic regression on features of a frozen network, in seconds.

Beside the set stand random real images, several draws, and all real images. A network that was trained on real labels
has seen the answer already: what counts is the place of the set between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError, UsageError
from fyi_bench.files import digest_of, sha256_file
from fyi_bench.present.words import bits_words, mean_and_std, percent, protocol_words, text_table
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.teachers import BROUGHT
from fyi_bench.run.types.features import TEST, TRAIN, Backbone, features_run
from fyi_bench.run.types.floor import FORMS, floor_run, likely_images
from fyi_bench.run.types.probe import probe_run
from fyi_bench.run.types.teacher import teachers_for
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.audit import SET, drawn_entry, entry_of, margin
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import digest_of_runs, size_of_parts
from fyi_bench.tasks.given import GivenSet, repeated_sets

if TYPE_CHECKING:
    from downstream.probe_module import BroughtModule
    from downstream.protocol import Protocol
    from fyi_bench.store.spec import RunSpec

RANDOM = "random"  # in the place of a file of weights
REAL = "real"  # the subject that is all real images
_WEIGHTS = {
    "cell": "trained here on all real images",
    "weights": "weights of a file",
    "state": "a module of the user's",
    "seed": "random weights",
}
_LIKE = "resnet18"  # the time that a user's own network is taken to need
Subject = tuple[str, str]  # the set, a form of the floor, or all real images; kind of labels


@dataclass(frozen=True)
class Probes:
    """What is compared: probes of every subject, and all runs that they need.

    draws: the runs that draw random images, by form.
    """

    given: GivenSet
    protocol: Protocol
    backbone: Backbone
    draws: Mapping[str, Sequence[RunSpec]]
    probes: Mapping[Subject, Sequence[RunSpec]]
    features: Sequence[RunSpec]
    made: Sequence[RunSpec]

    @property
    def runs(self) -> tuple[RunSpec, ...]:
        """The network, draws, features, probes."""
        draws = [run for runs in self.draws.values() for run in runs]
        return (*self.made, *draws, *self.features, *(run for runs in self.probes.values() for run in runs))


@TASKS.register("probe")
class Probe(Task[Any]):
    """Fit a linear probe to the set, to random real images and to all of them. It takes `evaluate`'s options."""

    command = ""
    summary = "Accuracy of logistic regression on features of a frozen network."
    heading = "Linear probe"

    def plan(self, session: Session, options: Any, found: Records) -> Plan:
        asked = _probes(session, options)
        what = f"linear probe of {asked.given.path.name} · {session.data.name} · {asked.backbone.model}"
        return Plan("\n".join([*asked.given.said, what]), asked.protocol.name, asked.runs, details=asked)

    def answer(self, session: Session, options: Any, plan: Plan, found: Records) -> Record:
        from fyi_bench.stats import paired_difference

        asked: Probes = plan.details
        values = {subject: [found[run.digest]["value"] for run in runs] for subject, runs in asked.probes.items()}
        kinds = [kind for subject, kind in asked.probes if subject == SET]
        against = {
            form: {
                kind: paired_difference(values[SET, kind] * len(runs), values[form, "own"]) for kind in kinds
            }
            for form, runs in asked.draws.items()
        }  # fmt: skip
        features = found[asked.features[0].digest]["features"]
        reference = asked.backbone.reference
        return build_record(
            self.name,
            **session.facts(asked.protocol),
            seeds=[session.settings.seed + k for k in range(asked.protocol.draws)],
            digest=digest_of_runs(self.name, asked.runs),
            arms=[_arm(session, asked, subject, kind, found) for subject, kind in asked.probes],
            probe={
                "network": asked.backbone.model,
                "weights": next(told for key, told in _WEIGHTS.items() if key in reference),
                "file": asked.backbone.file or None,
                "size": asked.backbone.size,
                "features": features,
                "accuracy": found[asked.made[0].digest]["value"] if asked.made else None,
                "l2": asked.probes[SET, kinds[0]][0].inputs["l2"],
                "features_s": round(sum(found[run.digest]["wall_s"] for run in asked.features), 3),
            },
            against=against,
        )

    def words(self, record: Mapping[str, Any]) -> str:
        arm = record["arms"][0]
        return "\n".join([
            f"{record['dataset']} · linear probe · protocol {protocol_words(record['protocol'])} · accuracies in %",
            _network_words(record),
            "",
            *text_table(*probe_table(record)),
            "",
            *words.size_lines([arm]),
            *words.set_lines({**record, "arms": [arm]}),
        ])  # fmt: skip

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        section.table(f"Linear probe: {_network_words(record)}.", *probe_table(record))
        section.sets(record, store)


def probe_table(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the set under each kind of labels, random images, all real images."""
    arms = record["arms"]
    several = sum("form" not in arm and arm["method"] != "full" for arm in arms) > 1
    kind = next(iter(next(iter(record["against"].values()))))
    rows = []
    for arm in arms:
        form, [entry] = arm.get("form"), arm["architectures"]
        title = FORMS[form] if form else arm.get("name", "") if arm["method"] == "full" else "the set"
        title += f", labels {arm['labels']}" if several and title == "the set" else ""
        less = margin(record["against"][form][kind]) if form else ""
        bits = bits_words(arm["bits_per_class"]["total"])
        rows.append([title, bits, mean_and_std(entry), less])
    return ["", "bits a class", "accuracy, %", "set − this [95 %]"], rows


def _network_words(record: Mapping[str, Any]) -> str:
    probe = record["probe"]
    known = "" if probe["accuracy"] is None else f" ({percent(probe['accuracy'])} %)"
    return f"{probe['network']}, {probe['weights']}{known}, {probe['features']:,} features of {probe['size']} px images"


def _arm(session: Session, asked: Probes, subject: str, kind: str, found: Records) -> dict[str, Any]:
    given, classes = asked.given.image_set, session.data.num_classes
    if subject == SET:
        entry = {**asked.given.entry, "images": len(given), "labels": kind}
    elif subject == REAL:
        train = session.data.train
        entry = {"method": "full", "flip": "none", "ipc": None, "name": "all real images", "images": len(train)}
        entry |= size_of_parts(train.parts, classes)
    else:
        entry = drawn_entry(subject, found[asked.draws[subject][0].digest], classes)
    return {
        **entry,
        "architectures": [
            entry_of(asked.backbone.model, [found[run.digest] for run in asked.probes[subject, kind]])
        ],
    }  # fmt: skip


def _probes(session: Session, options: Any) -> Probes:
    """All runs of the question. Raises what reading the set and naming the network raise."""
    [given] = repeated_sets(session, options.path, options.facts)
    of, data = given.image_set, session.data
    facts = {"size": of.shape[1], "classes": of.num_classes, "ipc": of.ipc}
    protocol = session.protocol("accuracy", given.method, **facts)
    backbone, made = _backbone(session, options)
    sizes: dict[str, Any] = {"images": of.counts.tolist()}
    sizes |= dict.fromkeys(("uint8", "jpeg"), of.nbytes) if options.floor else {}
    seeds = [session.settings.seed + k for k in range(protocol.draws)]
    draws = {form: [floor_run(data, form, size, seed) for seed in seeds] for form, size in sizes.items()}

    def features(images: Mapping[str, str] | str, count: int) -> RunSpec:
        return features_run(data, images, count, backbone)

    test, own = features(TEST, len(data.test)), features(given.reference, of.items)
    subjects: dict[Subject, list[RunSpec]] = {(SET, kind): [own] for kind in options.kinds or ["own"]}
    for form, runs in draws.items():
        count = likely_images(data, form, sizes[form])
        subjects[form, "own"] = [features({"cell": run.digest, "kind": "floor"}, count) for run in runs]
    subjects[REAL, "own"] = [features(TRAIN, len(data.train))]
    seen = {run.digest: run for run in (test, *(run for runs in subjects.values() for run in runs))}
    probes = {subject: [probe_run(run, test, subject[1]) for run in runs] for subject, runs in subjects.items()}
    return Probes(given, protocol, backbone, draws, probes, list(seen.values()), made)


def _backbone(session: Session, options: Any) -> tuple[Backbone, Sequence[RunSpec]]:
    """The network, and the run that trains it where it is trained here.

    Raises UsageError or UnknownNameError for a name, DataError for a file that cannot be read.
    """
    from distill.spaces import NormalizedSpace
    from downstream.probe_module import brought, file_and_name, module_of_file
    from fyi_bench.data.sets.imagenet import IMAGENET_STATISTICS
    from search_space.architectures import find, spelled

    data, seed = session.data, session.settings.seed
    if not isinstance(options.probe, str):
        return _brought(session, brought(options.probe), None, data.size), ()
    model, at, side = options.probe.rpartition("@")
    model, size = (model, int(side)) if at and side.isdigit() else (options.probe, data.size)
    if named := file_and_name(model):
        if options.weights is not None:
            raise UsageError(f"{model} has its weights already.\nLeave --weights out, and load them there.")
        return _brought(session, module_of_file(*named, seed), named, size), ()
    model = spelled(model)
    find(model)
    if options.weights is None:
        if size != data.size:
            raise UsageError(
                f"{model} is trained here on images of {data.size} px, not of {size}.\n"
                "Leave the size out, or give --weights FILE or --weights random."
            )
        rules = session.protocol("teacher", size=size, classes=data.num_classes)
        teachers = teachers_for(data, rules, [model], seed, session.settings.precision)
        return Backbone(teachers.inputs["teachers"][0], model, data.space.describe(), size), teachers.runs
    if options.weights == Path(RANDOM):
        return Backbone({"seed": seed, "model": model}, model, data.space.describe(), size), ()
    path, space = options.weights, data.space
    try:
        reference = {"weights": sha256_file(path), "model": model}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).\nName the file with --weights.") from error
    if model.startswith("torchvision:") and path.suffix != ".safetensors":
        space = NormalizedSpace(*IMAGENET_STATISTICS)  # what its published weights were trained with
    return Backbone(reference, model, space.describe(), size, str(path.resolve())), ()


def _brought(session: Session, module: BroughtModule, named: tuple[Path, str] | None, size: int) -> Backbone:
    """A user's own network, asked for the features of two black images before anything is planned with it."""
    import torch

    from distill.spaces import PixelSpace
    from downstream.probe_module import key_of

    with torch.no_grad():
        module.embed(torch.zeros(2, session.data.channels, size, size))
    file, name = named or (None, "")
    reference = {**key_of(module, file), "seed": session.settings.seed}
    if file is None:
        BROUGHT[digest_of(reference)] = module
    text = f"{file.resolve()}:{name}" if file else ""
    return Backbone(
        reference, f"{file.name}:{name}" if file else module.named, PixelSpace().describe(), size, text, _LIKE
    )
