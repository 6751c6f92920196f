"""The verdict of a card: a written rule over what was measured, and nothing beside it.

Every question has one answer: yes, no, in part, undecided (an interval contains 0, or there are too few values for
one), or not measured. The verdict follows from the answers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fyi_bench.present.words import bounds, correlation, is_number, percent, signed_points
from fyi_bench.tasks.nas.points import FEWEST_REPEATED, FEWEST_TOLD

YES, NO, PART, OPEN, MISSING = "yes", "no", "in part", "undecided", "not measured"
ALIKE = 0.05  # share of the images that may be (nearly) equal to another of the set

RULE = (
    "Labels: no where labels by chance explain the images a hundred times better than right ones. Of images that look"
    " like no real ones nothing is told; that networks learn from them shows it.",
    "Random, herding: the 95 % interval of the difference in accuracy (Welch) lies above 0: yes; below 0: no. Soft"
    " labels are judged by the set with hard ones, as the floors have them.",
    "Other architectures: yes if it is so on each of them, no if on one it lies below 0.",
    "Steps: by the average over the steps, paired over class orders, as for random.",
    "Ranking: yes where Spearman's interval lies above 0 and a second run on real data is not clearly better; in part"
    f" where it is; from fewer than {FEWEST_TOLD} architectures nothing is said.",
    f"Distinct: no where more than {100 * ALIKE:.0f} % of the images are equal to another, its mirror image, or nearly"
    " so.",
    "A faithful proxy: every answer is yes (labels: not no). Not a proxy: labels or random is no. A proxy in part:"
    " random is yes, and another answer is no or in part. Everything else is undecided.",
)


@dataclass(frozen=True)
class Answer:
    """One question, its answer, and the number behind it."""

    part: str
    question: str
    answer: str
    why: str = ""


def judge(parts: Mapping[str, Any]) -> dict[str, Any]:
    """{verdict, words, answers} of what was measured; a part that is not there was not measured."""
    answers = [
        Answer(part, question, *(ask(parts[part]) if part in parts else (MISSING, ""))) for part, question, ask in ASKED
    ]
    verdict = _verdict({one.question: one.answer for one in answers})
    return {"verdict": verdict, "words": _sentence(verdict, answers), "answers": [asdict(one) for one in answers]}


def _verdict(given: Mapping[str, str]) -> str:
    if NO in (given[LABELS], given[RANDOM]):
        return "not a proxy"
    if all(answer == YES for question, answer in given.items() if question != LABELS):
        return "a faithful proxy"
    if given[RANDOM] == YES and {NO, PART} & set(given.values()):
        return "a proxy in part"
    return "undecided"


def _sentence(verdict: str, answers: Sequence[Answer]) -> str:
    """The verdict with what it rests on."""
    groups = {kind: [one.question for one in answers if one.answer == kind] for kind in (NO, PART, OPEN, MISSING)}
    told = "; ".join(f"{'open' if kind == OPEN else kind}: {', '.join(ns)}" for kind, ns in groups.items() if ns)
    return f"{verdict.capitalize()}{f' ({told})' if told else ''}."


def _labels(part: Mapping[str, Any]) -> tuple[str, str]:
    if "doubtful" not in part:
        return MISSING, "no pixels, or too few real images, to tell"
    if not part["judged"]:
        return MISSING, f"only {percent(part['typical'], 0)} % of the images look like real ones"
    shares = {key: percent(part[key], 0) for key in ("nearest", "chance", "real")}
    why = (
        f"own class nearest for {shares['nearest']} % of {part['images']} images (chance {shares['chance']} %, real"
        f" images {shares['real']} %)"
    )
    return (NO if part["doubtful"] else YES), why


def _distinct(part: Mapping[str, Any]) -> tuple[str, str]:
    if "near" not in part:
        return MISSING, "too many images to compare"
    pairs = sum(part[kind] for kind in ("exact", "mirrored", "near"))
    what = f"{pairs} pairs among {part['images']:,} images"
    return (NO if pairs > ALIKE * part["images"] else YES), what


def _above(difference: Mapping[str, Any] | None) -> tuple[str, str]:
    if difference is None:
        return MISSING, ""
    if not is_number(difference["low"]):
        return OPEN, f"{signed_points(difference['mean'])} points, without an interval"
    answer = YES if difference["low"] > 0 else NO if difference["high"] < 0 else OPEN
    return answer, f"{signed_points(difference['mean'])}{bounds(difference, signed_points)} points"


def _everywhere(part: Mapping[str, Any]) -> tuple[str, str]:
    found = [_above(one.get("above_random"))[0] for one in part["architectures"]]
    if not found or MISSING in found:
        return MISSING, ""
    better = [one["name"] for one, answer in zip(part["architectures"], found, strict=True) if answer == YES]
    answer = YES if len(better) == len(found) else NO if NO in found else OPEN
    return answer, f"on {len(better)} of {len(found)}{': ' if better else ''}{', '.join(better)}"


def _ranks(part: Mapping[str, Any]) -> tuple[str, str]:
    entry, gap = part["spearman_all"], part["against_ceiling"]
    if not is_number(entry["low"]):
        return OPEN, "Spearman is not defined"
    why = f"Spearman {correlation(entry['value'])}{bounds(entry, correlation)} over {part['evaluated']}"
    if part["evaluated"] < FEWEST_TOLD or entry["low"] <= 0 <= entry["high"]:
        return OPEN, why
    if entry["high"] < 0:
        return NO, why
    if gap is None or gap["pairs"] < FEWEST_REPEATED or not is_number(gap["low"]):
        return YES, why
    below = gap["high"] < 0
    return (PART if below else YES), f"{why}, real data again {correlation(part['ceiling']['value'])}"


LABELS, RANDOM = "labels fit the images", "better than random real images"
ASKED: tuple[tuple[str, str, Callable[[Mapping[str, Any]], tuple[str, str]]], ...] = (
    ("labels", LABELS, _labels),
    ("duplicates", "images are distinct", _distinct),
    ("accuracy", RANDOM, lambda part: _above(part.get("above_random"))),
    ("accuracy", "better than herding", lambda part: _above(part.get("above_herding"))),
    ("cross-arch", "better on other architectures", _everywhere),
    ("continual", "remembers classes better than random", lambda part: _above(part.get("above_random"))),
    ("nas", "ranks architectures as real data does", _ranks),
)
