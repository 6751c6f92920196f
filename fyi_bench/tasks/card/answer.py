"""The answers of other tasks as the parts of a card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from downstream.protocol import FLOOR
from fyi_bench.run.plan import Plan, Records
from fyi_bench.store.record import read_record
from fyi_bench.store.run_dir import RECORD
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.card.asked import Asked
from fyi_bench.tasks.continual.options import JOINT

Answers = Mapping[str, Mapping[str, Any]]
Entry = dict[str, Any]


def measured(asked: Asked, answers: Answers, plans: Mapping[str, Plan], score: RunSpec | None, found: Records) -> Entry:
    """What was measured, part by part. answers, plans: of the tasks asked, by the word of each question."""
    made = {
        "labels": lambda: _labels(asked),
        "duplicates": lambda: _duplicates(asked),
        "accuracy": lambda: _accuracy(asked, answers),
        "cross-arch": lambda: {"architectures": [_held(name, answers) for name in asked.others]},
        "continual": lambda: _continual(answers["continual"], answers[JOINT]),
        "nas": lambda: _nas(answers["nas"]),
        "symmetry": lambda: _symmetry(answers, score, found),
        "cost": lambda: _cost(asked, plans, found),
    }
    return {name: made[name]() for name in asked.options.parts}


def _labels(asked: Asked) -> Entry:
    """Whether the labels fit the images; nothing but the kind where that cannot be told."""
    kind = {"kind": f"soft ({asked.given.image_set.label_kind})" if asked.soft else "hard"}
    from fyi_bench.formats.guard import label_agreement

    agreement = label_agreement(asked.given.image_set, asked.session.data.train)
    if agreement is None:
        return kind
    facts = {
        key: getattr(agreement, key) for key in ("images", "nearest", "real", "typical", "odds", "judged", "doubtful")
    }
    return {**kind, **facts, "chance": 1 / agreement.classes}


def _duplicates(asked: Asked) -> Entry:
    """Pairs of images that are alike, and how many images there are; no counts for a set that is too large."""
    from fyi_bench.formats.alike import find_duplicates

    found = find_duplicates(asked.given.image_set.decoded())
    pairs = {kind: found[kind]["pairs"] for kind in ("exact", "mirrored", "near")} if found else {}
    return {"images": len(asked.given.image_set), **pairs, **({"threshold": found["threshold"]} if found else {})}


def _accuracy(asked: Asked, answers: Answers) -> Entry:
    from fyi_bench.stats import unpaired_difference

    held = _held(asked.main, answers)
    if "herding" in answers:
        herding, judged = _entry(answers["herding"], asked.main), held.get("hard") or held["set"]
        held |= {"herding": herding, "above_herding": unpaired_difference(judged["values"], herding["values"])}
    arm, full = answers["full"]["arms"][0], _entry(answers["full"], asked.main)
    return {**held, "full": {**full, "images": arm["images"], "epochs": arm["epochs"]}}


def _held(name: str, answers: Answers) -> Entry:
    """An architecture trained on the set, on it with hard labels, and on draws of random images, where it was.

    above_random: of the set, with hard labels where its own are soft, as random images have them.
    """
    from fyi_bench.stats import unpaired_difference

    held: Entry = {"name": name}
    held |= {what: _entry(answers[what], name) for what in ("set", "hard", "random") if what in answers}
    if "random" in held:
        values, draws = held["random"]["values"], len(answers["random"]["arms"][0]["sets"])
        owners = [k * draws // len(values) for k in range(len(values))]
        judged = held.get("hard") or held["set"]
        held["random"]["draws"] = draws
        held["above_random"] = unpaired_difference(judged["values"], values, groups=(None, owners))
    return held


def _entry(record: Mapping[str, Any], name: str) -> Entry:
    [found] = [entry for entry in record["arms"][0]["architectures"] if entry["name"] == name]
    return {key: found[key] for key in ("values", "mean", "std")}


def _continual(record: Mapping[str, Any], joint: Mapping[str, Any]) -> Entry:
    """Average over the steps of the set's memory and of each bound; differences are paired over class orders."""
    [ours, *bounds] = [
        {**{key: arm["average"][key] for key in ("values", "mean", "std")}, "orders": len(own["class_orders"])}
        for own, arms in ((record, record["arms"]), (joint, joint["arms"][1:]))
        for arm in arms
    ]
    names = [arm["method"] for arm in (*record["arms"][1:], *joint["arms"][1:])]
    paired = next((one for one in record["paired"] if one["against"]["method"] == FLOOR), None)
    above = {key: paired[key] for key in ("mean", "low", "high", "pairs")} if paired else None
    return {
        "steps": record["steps"],
        "orders": len(record["class_orders"]),
        "set": ours,
        "bounds": dict(zip(names, bounds, strict=True)),
        **({"above_random": above} if above else {}),
    }


def _nas(record: Mapping[str, Any]) -> Entry:
    from fyi_bench.stats import HEADLINE
    from fyi_bench.tasks.nas.faithful import faithful_words

    arm, real = record["arms"][0], record["reference"]
    ceiling, gap = record["ceiling"], (arm.get("against_ceiling") or {}).get(HEADLINE)
    statistics = {key: arm[key] for key in (HEADLINE, "spearman_top50", "kendall_all", "top10_recall", "regret")}
    return {
        "evaluated": arm["evaluated"],
        "failed": arm["failed"],
        **statistics,
        "ceiling": ceiling.get(HEADLINE),
        "ceiling_evaluated": ceiling["evaluated"],
        "against_ceiling": gap,
        "reference": {key: real[key] for key in ("images", "epochs", "test_images")},
        "words": faithful_words(record, " "),
    }


def _symmetry(answers: Answers, score: RunSpec | None, found: Records) -> Entry:
    """The score of the set and that of as many random real images, where they can be compared."""
    own = {"set": {key: found[score.digest][key] for key in ("mean", "std", "networks")}} if score else {}
    random = answers["random"]["arms"][0]["unequalness"] if "random" in answers else None
    return {**own, **({"random": {"mean": random["mean"]}} if random else {})}


def _cost(asked: Asked, plans: Mapping[str, Plan], found: Records) -> Entry:
    s, real, made = asked.given.image_set, asked.session.data.train, asked.given.path.with_name(RECORD)
    ours = made.parent.parent.name == "distill" and made.is_file()
    distilled = {"distill_s": read_record(made)["wall_s"]} if ours else {}
    return {
        "images": len(s),
        "set_bytes": s.nbytes,
        "bits_per_class": asked.given.entry["bits_per_class"]["total"],
        "share_of_real_bytes": s.nbytes / real.nbytes,
        **distilled,
        "measuring_s": _seconds(plans, found),
    }


def _seconds(plans: Mapping[str, Plan], found: Records) -> dict[str, float]:
    """Seconds of the runs of each question, those of several with the first of them."""
    spent, counted = {}, set[str]()
    for word, plan in plans.items():
        own = {run.digest for run in plan.runs if run.digest in found} - counted
        spent[word] = round(sum(found[digest].get("wall_s", 0.0) for digest in sorted(own)), 3)
        counted |= own
    return spent
