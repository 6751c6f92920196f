"""The answer of `fyi-bench nas`: what the trained networks say about each proxy, as a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from fyi_bench.run.plan import Records
from fyi_bench.store.record import build_record
from fyi_bench.tasks.common import FLOOR, Arm, size_of
from fyi_bench.tasks.nas.search import Search, Side

if TYPE_CHECKING:
    from downstream.nas import Architecture

Scores = Sequence[float | None]
VALIDATION = "validation"
FEWEST_HALVED = 12  # architectures of which a search by halving says something


def answer_of(search: Search, found: Records, partial: bool = False) -> dict[str, Any]:
    """The record of a search whose networks are trained. partial: some of the architectures only, not to be kept."""
    session, points, seed = search.session, search.points, search.session.settings.seed
    real = search.real.scores(points, found)
    proxies = {arm: side.scores(points, found) for arm, side in search.proxies.items()}
    held = search.real.scores(points, found, VALIDATION)
    twice = _trained_twice(search, found)
    times, reckoned = search.real_times(found)
    halving = _halving_of(search, real, times)
    floor = search.proxies.get(Arm(FLOOR, "none"))
    return build_record(
        "nas",
        **session.facts(search.protocol),
        seeds=search.seeds,
        digest=search.digest,
        arms=[
            {
                **arm.facts,
                "ipc": search.ipcs[arm],
                "space": len(points),
                **_agreement(search, real, side, found),
                **_validated(search, held, side, found),
                "against_ceiling": _against(search, side, search.again, twice, found),
                "against_floor": _against(search, side, floor, points, found) if side is not floor else {},
                **_cost(search, side, found),
                **halving(*_first_rung(search, side, found)),
            }
            for arm, side in search.proxies.items()
        ],
        scores=_scores(search, {"value": real, VALIDATION: held}, found, halving),
        space=len(points),
        part={"space": search.part.space, "of": search.part.of, "sized": search.part.cut},
        architectures=_architectures(search, real, search.again.scores(points, found), held),
        reference={**_reference(search, real), "train_s": round(sum(times), 1), "reckoned": reckoned},
        # the real ranking against itself with another seed, on the architectures that have both
        ceiling=_ceiling(search, twice, found),
        workers=session.settings.processes,
        partial=partial,
        **_difference(real, proxies, seed),
    )


def _ceiling(search: Search, twice: Sequence[Architecture], found: Records) -> dict[str, Any]:
    """The real ranking against itself with another seed, by test images and by those set aside."""
    from fyi_bench.stats import rank_report

    if not twice:
        return {"evaluated": 0}
    reports = {}
    for key in ("value", VALIDATION):
        first, again = (side.scores(twice, found, key) for side in (search.real, search.again))
        if key == "value" or any(score is not None for score in first):
            reports[key] = rank_report(first, again, search.session.settings.seed)
    return reports.pop("value") | reports


def _trained_twice(search: Search, found: Records) -> list[Architecture]:
    sides, store = (search.real, search.again), search.session.store
    return [point for point in search.points if all(side.settled(point, found, store) for side in sides)]


def _agreement(search: Search, real: Scores, side: Side, found: Records) -> dict[str, Any]:
    """How well a proxy ranks, and what it misjudges; of several rankings the mean, and how many they are."""
    from fyi_bench.stats import misjudged

    names = search.points[0].factors if all(point.factors for point in search.points) else ()
    factors = {name: [point.factors.get(name) for point in search.points] for name in names}
    proxy = side.scores(search.points, found)
    return {
        **_report(search, real, side, found),
        "draws": side.parts,
        "accuracy": proxy,
        # of several rankings about as many as in one of them
        "tied": round(mean(_tied(one.scores(search.points, found)) for one in side.rankings)),
        "misjudged": misjudged(factors, real, proxy),
    }


def _report(search: Search, real: Scores, side: Side, found: Records, key: str = "value") -> dict[str, Any]:
    """Every rank statistic of a side, the mean over its rankings, whose values stand beside where they are several.

    An interval is that of one ranking over architectures: the mean of theirs.
    """
    from fyi_bench.stats import STATISTICS, rank_report

    seed = search.session.settings.seed
    each = [rank_report(real, one.scores(search.points, found, key), seed) for one in side.rankings]
    if len(each) == 1:
        return each[0]
    mean = {name: {bound: _mean([one[name][bound] for one in each]) for bound in each[0][name]} for name in STATISTICS}
    draws = {name: mean[name] | {"draws": [one[name]["value"] for one in each]} for name in STATISTICS}
    return {**each[0], **draws, "failed": sum(one["failed"] for one in each)}


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one of them is not defined."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there and len(there) == len(values) else None


def _validated(search: Search, real: Scores, side: Side, found: Records) -> dict[str, Any]:
    """The rank statistics again with both sides ranked by accuracy on the images set aside, where both were tested."""
    if all(score is None for score in (*real, *side.scores(search.points, found, VALIDATION))):
        return {}
    if all(score is None for score in real):
        return {}
    report = _report(search, real, side, found, VALIDATION)
    return {VALIDATION: report | {"accuracy": side.scores(search.points, found, VALIDATION)}}


def _against(
    search: Search, side: Side, other: Side | None, points: Sequence[Architecture], found: Records
) -> dict[str, Any]:
    """Paired differences of a proxy minus another side on these architectures; of several rankings the mean."""
    from fyi_bench.stats import mean_rank_difference

    if other is None or not points:
        return {}
    ours, theirs = ([one.scores(points, found) for one in some.rankings] for some in (side, other))
    return mean_rank_difference(search.real.scores(points, found), ours, theirs, search.session.settings.seed)


def _cost(search: Search, side: Side, found: Records) -> dict[str, Any]:
    """Images, epochs, bytes and seconds of a proxy, of one ranking where it has several."""
    makers = [run for run in search.makers if run.digest in side.makers]
    made = [found[run.digest] for run in makers if run.digest in found]
    trained, classes = side.records(search.points, found), search.session.data.num_classes
    return {
        "images": side.images,
        "epochs": trained[0]["epochs"] if trained else None,
        **(size_of(made[0], classes) if made and "set_bytes" in made[0] else {"set_bytes": None}),
        "train_s": round(_seconds(trained) / side.parts, 1),
        # what a set from a file took to make is not known
        "distill_s": None if any(one["kind"] == "set" for one in made) else round(_seconds(made) / side.parts, 1),
        "cells": [run.digest for run in makers],
    }


def _halving_of(search: Search, real: Scores, times: Sequence[float]) -> Callable[..., dict[str, Any]]:
    """What gives the entry `halving` of a side: a search whose first rung it is, and whose second is the real data."""
    from fyi_bench.stats.halving import successive_halving

    seed, known = search.session.settings.seed, [seconds for seconds in times if seconds]
    # a network that failed on real data left no time: it would have taken what the others do
    failed = [score is None for score in real]
    times = [seconds or (median(known) if gone and known else 0.0) for seconds, gone in zip(times, failed, strict=True)]

    def of(scores: Scores, seconds: Sequence[float], before: float) -> dict[str, Any]:
        if len(search.points) < FEWEST_HALVED or not all(times):
            return {}
        found = successive_halving(scores, real, times, seed)
        found["seconds"] = round(before + sum(seconds) + found["real_s"], 1)
        return {"halving": found | {"seconds_all": round(sum(times), 1)}}

    return of


def _first_rung(search: Search, side: Side, found: Records) -> tuple[Scores, Sequence[float], float]:
    """Accuracies of one ranking of a side, seconds of its networks, seconds for its sets."""
    made = [found[digest] for digest in side.makers if digest in found]
    one = side.rankings[0]
    return one.scores(search.points, found), one.times(search.points, found), _seconds(made) / side.parts


def _scores(
    search: Search, real: Mapping[str, Scores], found: Records, halving: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """How well the scores of untrained networks rank, an entry each, with what they cost.

    real: accuracies on test images and on those set aside, by which real data ranks.
    """
    from downstream.zero_cost import SCORES
    from fyi_bench.stats import rank_report

    records = [found.get(search.scored[point].digest) for point in search.points if point in search.scored]
    entries = []
    for name in SCORES if records else ():
        values = [None if record is None else record["scores"][name] for record in records]
        times = [0.0 if record is None else record["seconds"].get(name, 0.0) for record in records]
        ranked = {key: some for key, some in real.items() if key == "value" or any(one is not None for one in some)}
        reports = {key: rank_report(some, values, search.session.settings.seed) for key, some in ranked.items()}
        entry = {"method": name, **reports.pop("value"), **reports, "scores": values, "seconds": round(sum(times), 2)}
        entries.append(entry | halving(values, times, 0.0))
    return entries


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(record["wall_s"] for record in records), 1)


def _architectures(search: Search, real: Scores, again: Scores, held: Scores) -> list[dict[str, Any]]:
    from search_space.architectures import work
    from search_space.space720 import Point

    data = search.session.data
    sizes = *data.train.shape[:2], data.num_classes
    return [
        {
            "name": point.name,
            "parameters": work(point.architecture, *sizes).parameters,
            "flops": work(point.architecture, *sizes).flops,
            **({} if isinstance(point, Point) else {"factors": point.factors}),
            "real": first,
            "real_again": second,
            **({} if validation is None else {"real_validation": validation}),
        }
        for point, first, second, validation in zip(search.points, real, again, held, strict=True)
    ]


def _reference(search: Search, real: Scores) -> dict[str, Any]:
    """How the real ranking was made."""
    counts = {"failed": sum(score is None for score in real), "tied": _tied(real)}
    if search.stored is not None:
        name, ranking = search.stored
        named = {"kind": "table" if ranking.is_table else "stored", "name": name, **asdict(ranking.label)}
        named |= {"dataset": search.session.data.name}
        return {**named, **counts, "seeds": ranking.seeds}
    protocol = search.reference.protocol
    return {
        "kind": "train",
        "dataset": search.session.data.name,
        "protocol": protocol.name,
        "epochs": protocol.epochs_for(search.real.images),
        "images": search.real.images,
        "test_images": search.real.test_images,
        **counts,
    }


def _tied(values: Scores) -> int:
    """How many architectures have the accuracy of another; failed ones are counted elsewhere."""
    counts = Counter(value for value in values if value is not None)
    return sum(count for count in counts.values() if count > 1)


def _difference(real: Scores, proxies: Mapping[Arm, Scores], seed: int) -> dict[str, Any]:
    """Paired differences with the flip minus without, where two arms differ only in it."""
    from fyi_bench.stats import HEADLINE, paired_rank_difference

    for arm in proxies:
        base = Arm(arm.method, "none")
        if arm.flip not in ("none", "unknown") and base in proxies:
            found = paired_rank_difference(real, proxies[arm], proxies[base], seed)
            return {"difference": found[HEADLINE], "differences": found}
    return {}
