"""Whether a set is a faithful proxy for ranking architectures, in words: what the intervals of a `nas` record allow.

The rule, applied to Spearman's correlation with the real ranking over all architectures: from few of them nothing is
said. An interval that contains 0 is no evidence of any agreement; one above 0 is agreement, and is held against the
ceiling, a second run of the real training, both on the same architectures, paired. Clearly below the ceiling means a
proxy in part; not told apart from it means as good as far as so many architectures tell, which a wide interval makes a
weak statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fyi_bench.present.words import (
    MINUS,
    arm_title,
    bounds,
    correlation,
    count_words,
    flip_title,
    is_number,
    percent,
    verdict,
)
from fyi_bench.stats import HEADLINE
from fyi_bench.tasks.nas.points import FEWEST_REPEATED, FEWEST_TOLD

Record = Mapping[str, Any]
_HALF = "spearman_top50"


def faithful_words(record: Record, joint: str = "\n  ") -> list[str]:
    """For every arm a verdict, and what it means for the better half and for the choice of one architecture.

    joint: between the sentences on an arm.
    """
    arms = [joint.join([f"{arm_title(arm)}: {_verdict(arm, record)}", *_consequences(arm)]) for arm in record["arms"]]
    return _doubts(record["ceiling"]) + arms


def _doubts(ceiling: Record) -> list[str]:
    """A warning where the real ranking does not even repeat itself, so that nothing can be judged by it."""
    entry = ceiling.get(HEADLINE)
    if entry is None or ceiling["evaluated"] < FEWEST_REPEATED or not _bounded(entry) or entry["low"] > 0:
        return []
    return [
        f"The real ranking does not repeat itself: Spearman {with_interval(entry)} between two seeds. Train the real"
        " side longer (--reference-epochs, --reference-images) before judging a set by it."
    ]


def _verdict(arm: Record, record: Record) -> str:
    entry, all_of_them = arm[HEADLINE], f"the {arm['evaluated']} architectures"
    if arm["evaluated"] < FEWEST_TOLD:
        return f"{arm['evaluated']} architectures are too few to tell; {FEWEST_TOLD} are the least."
    if not _bounded(entry):
        return f"cannot be told, as a correlation over {all_of_them} is not defined here."
    agreement = f"Spearman {with_interval(entry)} over {all_of_them}"
    if entry["low"] <= 0 <= entry["high"]:
        return f"no evidence that it ranks architectures as real data does: {agreement}; the interval contains 0."
    if entry["high"] < 0:
        return f"not a proxy: it ranks architectures against real data, {agreement}."
    return f"{_against_ceiling(arm, record['ceiling'])} {agreement}."


def _against_ceiling(arm: Record, ceiling: Record) -> str:
    gap = (arm.get("against_ceiling") or {}).get(HEADLINE)
    if gap is None or gap["pairs"] < FEWEST_REPEATED or not is_number(gap["low"]):
        return "it agrees with real data; how well real data agrees with itself was not measured here:"
    real = f"{with_interval(ceiling[HEADLINE])} of a second run on real data"
    beside = f"({_signed_interval(gap)} against {real}, on {gap['pairs']})"
    if gap["high"] < 0:
        return f"a proxy in part, clearly less faithful than real data itself {beside}:"
    return f"a proxy, not told apart from a second run on real data {beside}:"


def _consequences(arm: Record) -> list[str]:
    half, lost, recall = arm[_HALF], arm["regret"], arm["top10_recall"]
    lines = []
    if _bounded(half) and arm["evaluated"] >= FEWEST_TOLD:
        useful = "it also tells them apart" if half["low"] > 0 else "no evidence that it tells these apart"
        lines.append(f"Among the really better half: {with_interval(half)}, {useful}.")
    if is_number(lost["value"]):
        chance = f" (by chance {100 / arm['evaluated']:.1f})"
        told = is_number(recall["value"]) and arm["evaluated"] >= FEWEST_TOLD
        found = f"; of the 10 best it finds {10 * recall['value']:.1f}{chance}" if told else ""
        lines.append(f"Its best architecture is {percent(lost['value'])} points below the really best one{found}.")
    beside = (arm.get("against_floor") or {}).get(HEADLINE)
    if beside is not None and is_number(beside["low"]) and arm["evaluated"] >= FEWEST_TOLD:
        apart = "better" if beside["low"] > 0 else "worse" if beside["high"] < 0 else ""
        told = f"it ranks {apart} than they do" if apart else "not told apart from them"
        lines.append(f"Minus Spearman on as many random real images: {_signed_interval(beside)}, paired; {told}.")
    return lines


def rules_words(record: Record) -> list[str]:
    """How many networks failed or are tied, and by which rule they are ranked."""
    reference, arms = record["reference"], record["arms"]
    failed = sum(arm["failed"] for arm in arms) + reference.get("failed", 0)
    lines = [f"{count_words(failed, 'network')} failed; they rank last, tied."] if failed else []
    tied = {"real data": reference.get("tied"), **{arm_title(arm): arm.get("tied") for arm in arms}}
    told = ", ".join(f"{count} on {name}" for name, count in tied.items() if count)
    return [
        *lines,
        *([f"Tied architectures: {told}; they share the mean rank."] if told else []),
    ]


def difference_of_search(record: Record, flip: str) -> str:
    """The paired difference of a `nas` record in words: 'Spearman over all, fyi − none: +0.03, 95 % interval …'."""
    difference = record["difference"]
    what = f"Spearman over all, {flip_title(flip)} {MINUS} none:"
    if not is_number(difference["mean"]) or not is_number(difference["low"]):
        return f"{what} not defined for these rankings"
    if difference["pairs"] < FEWEST_TOLD:
        return f"{what} {signed(difference['mean'])}; {_too_few(difference['pairs'])}"
    one = " (one pair of sets: sets of other seeds may differ)" if len(record["seeds"]) == 1 else ""
    return (
        f"{what} {signed(difference['mean'])}, 95 % interval{bounds(difference, signed)}, paired over"
        f" {difference['pairs']} architectures: {verdict(difference, flip)}{one}"
    )


def headline_of_search(record: Record) -> str:
    """Spearman over all of every arm beside that of a second run on real data, and the paired difference."""
    ceiling = record["ceiling"]
    sides = [(arm_title(arm), arm) for arm in record["arms"]]
    sides += [("real data again", ceiling)] if ceiling.get("evaluated") else []
    few, asked = record["arms"][0]["evaluated"], next(
        (arm["flip"] for arm in record["arms"] if arm["flip"] not in ("none", "unknown")), ""
    )  # fmt: skip
    told = ", ".join(f"{name} {with_interval(one[HEADLINE])}" for name, one in sides)
    if few < FEWEST_TOLD:
        told = ", ".join(f"{name} {correlation(one[HEADLINE]['value'])}" for name, one in sides)
        return f"Spearman over {few} architectures: {told}; {_too_few(few)}."
    words = f"Spearman over {few} architectures: {told}."
    return f"{words} {difference_of_search(record, asked)}." if asked and "difference" in record else words


def _too_few(count: int) -> str:
    return f"{count} architectures are too few to tell, {FEWEST_TOLD} are the least"


def with_interval(entry: Record, words: Callable[[float | None], str] | None = None) -> str:
    """'0.61 [0.40, 0.77]', or the value alone where it has no interval."""
    words = words or correlation
    return words(entry["value"]) + bounds(entry, words)


def signed(value: float) -> str:
    """'+0.03'."""
    return f"{value:+.2f}".replace("-", MINUS)


def _signed_interval(difference: Record) -> str:
    """'+0.03 [−0.01, +0.07]'."""
    return signed(difference["mean"]) + bounds(difference, signed)


def _bounded(entry: Record) -> bool:
    return is_number(entry["value"]) and is_number(entry["low"])
