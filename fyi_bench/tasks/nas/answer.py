"""The answer of `fyi-bench nas`: what the trained networks say about each proxy, as a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fyi_bench.run.plan import Records
from fyi_bench.store.record import build_record
from fyi_bench.tasks.common import Arm
from fyi_bench.tasks.nas.search import Search, Side

if TYPE_CHECKING:
    from search_space.space720 import Point

Scores = Sequence[float | None]


def answer_of(search: Search, found: Records, partial: bool = False) -> dict[str, Any]:
    """The record of a search whose networks are trained. partial: some of the architectures only, not to be kept."""
    from fyi_bench.stats import rank_report

    session, points, seed = search.session, search.points, search.session.settings.seed
    real = search.real.scores(points, found)
    proxies = {arm: side.scores(points, found) for arm, side in search.proxies.items()}
    twice = _trained_twice(search, found)
    first, again = (side.scores(twice, found) for side in (search.real, search.again))
    return build_record(
        "nas",
        **session.facts(search.protocol),
        seeds=search.seeds,
        digest=search.digest,
        arms=[
            {
                "method": arm.method,
                "flip": arm.flip,
                "ipc": search.ipcs[arm],
                "space": len(points),
                **_agreement(search, real, proxies[arm]),
                "against_ceiling": _against_ceiling(search, side, found, twice),
                **_cost(search, side, found),
            }
            for arm, side in search.proxies.items()
        ],
        space=len(points),
        architectures=_architectures(search, real, search.again.scores(points, found)),
        reference=_reference(search, real, found),
        # the real ranking against itself with another seed, on the architectures that have both
        ceiling=rank_report(first, again, seed) if twice else {"evaluated": 0},
        workers=session.settings.workers,
        partial=partial,
        **_difference(real, proxies, seed),
    )


def _trained_twice(search: Search, found: Records) -> list[Point]:
    sides, store = (search.real, search.again), search.session.store
    return [point for point in search.points if all(side.settled(point, found, store) for side in sides)]


def _agreement(search: Search, real: Scores, proxy: Scores) -> dict[str, Any]:
    """How well a proxy ranks, and what it misjudges."""
    from fyi_bench.stats import misjudged, rank_report

    factors = {factor: [getattr(point, factor) for point in search.points] for factor in asdict(search.points[0])}
    return {
        **rank_report(real, proxy, search.session.settings.seed),
        "accuracy": proxy,
        "tied": _tied(proxy),
        "misjudged": misjudged(factors, real, proxy),
    }


def _against_ceiling(search: Search, side: Side, found: Records, twice: Sequence[Point]) -> dict[str, Any]:
    """Paired differences, the proxy minus the ceiling, on the architectures that the ceiling is about."""
    from fyi_bench.stats import paired_rank_difference

    if not twice:
        return {}
    real, proxy, again = (one.scores(twice, found) for one in (search.real, side, search.again))
    return paired_rank_difference(real, proxy, again, search.session.settings.seed)


def _cost(search: Search, side: Side, found: Records) -> dict[str, Any]:
    """Images, epochs, bytes and seconds of a proxy."""
    makers = [run for run in search.makers if run.digest in side.makers]
    made = [found[run.digest] for run in makers if run.digest in found]
    trained = side.records(search.points, found)
    return {
        "images": side.images,
        "epochs": trained[0]["epochs"] if trained else None,
        "set_bytes": made[0].get("set_bytes") if made else None,
        "train_s": _seconds(trained),
        "distill_s": _seconds(made),
        "cells": [run.digest for run in makers],
    }


def _seconds(records: Sequence[Mapping[str, Any]]) -> float:
    return round(sum(record["wall_s"] for record in records), 1)


def _architectures(search: Search, real: Scores, again: Scores) -> list[dict[str, Any]]:
    from search_space.space720 import flops, parameters

    data = search.session.data
    sizes = *data.train.shape[:2], data.num_classes
    return [
        {
            "name": point.name,
            "parameters": parameters(point, *sizes),
            "flops": flops(point, *sizes),
            "real": first,
            "real_again": second,
        }
        for point, first, second in zip(search.points, real, again, strict=True)
    ]


def _reference(search: Search, real: Scores, found: Records) -> dict[str, Any]:
    """How the real ranking was made."""
    counts = {"failed": sum(score is None for score in real), "tied": _tied(real)}
    if search.stored is not None:
        named = {"kind": "stored", "name": search.options.reference, **asdict(search.stored.label)}
        return {**named, **counts, "seeds": search.stored.seeds, "train_s": round(search.stored.seconds, 1)}
    protocol = search.reference_protocol
    return {
        "kind": "train",
        "dataset": search.session.data.name,
        "protocol": protocol.name,
        "epochs": protocol.epochs_for(search.real.images),
        "images": search.real.images,
        "test_images": search.real.test_images,
        **counts,
        "train_s": _seconds(search.real.records(search.points, found)),
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
