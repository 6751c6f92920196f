"""What must hold of a row of a ranking and its label: rules, each with what is said where it does not.

`search_space.ranking` asks `READ` and `TIME` of every file, `HANDED_IN` of those that are handed in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from fyi_bench.errors import DataError
from search_space import space720
from search_space.spaces import SPACES

Rule = tuple[Callable[[Any], Any], str]  # what must hold; what is said where it does not, with fields in braces
ROUNDING = 1e-6  # of an accuracy, and of the number of images it is
_MOST = 10**9  # images, epochs: more than there ever are
TIME: Rule = (
    lambda it: 0 <= it.seconds < math.inf, "{seconds} seconds is no time.\nWrite what training and testing took."
)  # fmt: skip
# without these nothing can be planned
READ: tuple[Rule, ...] = (
    (lambda it: 0 < it.epochs <= _MOST, "epochs is {epochs}.\nWrite how many each network was trained for."),
    (lambda it: 0 < it.images <= _MOST, "images is {images}.\nWrite on how many each network was trained."),
    (lambda it: 0 < it.test_images <= _MOST, "test_images is {test_images}.\nWrite on how many each was tested."),
    (
        lambda it: 0 <= it.aside < 1,
        "aside is {aside}.\nWrite the share of the train images set aside, from 0 to below 1.",
    ),
)


def hold(rules: Iterable[Rule], thing: Any, here: str) -> None:
    """DataError of the first rule that does not hold of this thing."""
    for holds, words in rules:
        if not holds(thing):
            raise DataError(f"{here}: {words.format(**vars(thing))}")


def _whole(share: float | None, counts: Iterable[int]) -> bool:
    """Whether an accuracy is a whole number of one of these numbers of images."""
    return share is None or any(abs(share * count - round(share * count)) <= ROUNDING for count in counts)


def _validated(it: Any) -> range:
    """On how many images set aside a network may have been tested: as many as test images at most.

    The share is taken class by class, so the sum may be off by one a class. Of unknown data sets there is no number.
    """
    train, _, classes = SIZES.get(it.dataset, (0, 0, 0))
    low, high = (min(it.test_images, round(it.aside * train) + off) for off in (-classes, classes))
    return range(max(1, low), high + 1)


# What rooms above this one know; a test holds these against them.
PRECISIONS = ("fp32", "bf16")
PROTOCOLS = {"paper": 200, "quick": 2}  # epochs of those that say how a real side is trained
TRAINER = 1  # the version of the trainer: there is none later
SECOND_VERSION = ("mnist", "mnist-mirrored", "svhn")  # data sets whose protocols are in their second version
SIZES = {  # train images, test images, classes
    "cifar10": (50_000, 10_000, 10), "cifar100": (50_000, 10_000, 100), "fashionmnist": (60_000, 10_000, 10),
    "mnist": (60_000, 10_000, 10), "mnist-mirrored": (120_000, 20_000, 10), "shapes10": (5_000, 1_000, 10),
    "shapes100": (30_000, 5_000, 100), "svhn": (73_257, 26_032, 10), "tinyimagenet": (100_000, 10_000, 200),
}  # fmt: skip
AS_WRITTEN = "Hand in what `fyi-bench ranking` wrote, unchanged."
CONVNETS = {point.name: point.index for point in space720.SPACE}
_DIGEST = re.compile("[0-9a-f]{16}")
_PROTOCOL = re.compile(rf"({'|'.join(PROTOCOLS)})((?:\+\w+=\S+)*) v([1-9][0-9]*)")
_MOST_THREADS = 4096


def _epochs(it: Any) -> int | None:
    """For how many epochs a protocol trains, None where another key of it changes that."""
    found = _PROTOCOL.fullmatch(it.protocol)
    changes = dict(one.split("=", 1) for one in found[2].split("+")[1:]) if found else {}
    if found is None or {"min_steps", "extra_epoch"} & changes.keys():
        return None
    return int(changes["epochs"]) if changes.get("epochs", "").isdigit() else PROTOCOLS[found[1]]


def _room(it: Any) -> float:
    """How many train images there are beside those set aside, which may be off by one a class."""
    train, _, classes = SIZES.get(it.dataset, (_MOST, 0, 0))
    return (1 - it.aside) * train + classes


def _version(it: Any) -> bool:
    found = _PROTOCOL.fullmatch(it.protocol)
    return found is None or it.dataset not in SIZES or int(found[3]) == 1 + (it.dataset in SECOND_VERSION)


# of a label and a row together
HANDED_IN: tuple[Rule, ...] = (
    (lambda it: it.precision in PRECISIONS, f"'{{precision}}' is no precision.\nWrite {' or '.join(PRECISIONS)}."),
    (
        lambda it: _PROTOCOL.fullmatch(it.protocol),
        "'{protocol}' is no protocol with its version.\nWrite it as in `quick v1` or `paper+lr=0.02 v1`;"
        f" there are {' and '.join(PROTOCOLS)}.",
    ),
    (_version, "{protocol} is no version of the protocol for {dataset}.\n" + AS_WRITTEN),
    (
        lambda it: _epochs(it) in (None, it.epochs),
        "{protocol} trains for other than {epochs} epochs.\nName the change: `quick+epochs=5 v1`.",
    ),
    (lambda it: 1 <= it.trainer <= TRAINER, f"trainer is {{trainer}}.\nThere are versions 1 to {TRAINER}."),
    (
        lambda it: it.images <= _room(it),
        "{images} train images are more than {dataset} has beside what is set aside.\nWrite how many there were.",
    ),
    (
        lambda it: it.dataset not in SIZES or min(it.images, it.test_images) >= SIZES[it.dataset][2],
        "{images} train or {test_images} test images are fewer than {dataset} has classes.\nWrite how many there were.",
    ),
    (
        lambda it: it.test_images <= SIZES.get(it.dataset, (0, _MOST))[1],
        "{test_images} test images are more than {dataset} has.\nWrite how many there were.",
    ),
    (
        lambda it: not it.data or _DIGEST.fullmatch(it.data),
        "'{data}' is no digest of train images.\nWrite 16 digits of 0-9 and a-f under data.",
    ),
    (
        lambda it: it.data or not it.aside,
        "the share {aside} is set aside of unknown images.\nWrite their digest under data.",
    ),
    (
        lambda it: it.validation is None or (it.data and it.aside),
        "it has a validation accuracy and no images set aside.\nFill in aside and data.",
    ),
    (
        lambda it: it.validation is None or it.accuracy is not None,
        "it failed and has a validation accuracy.\nLeave both empty.",
    ),
    (
        lambda it: _whole(it.accuracy, [it.test_images]),
        f"{{accuracy}} is no whole number of {{test_images}} test images.\n{AS_WRITTEN}",
    ),
    (
        lambda it: it.dataset not in SIZES or _whole(it.validation, _validated(it)),
        f"the validation {{validation}} is no whole number of the images set aside.\n{AS_WRITTEN}",
    ),
    (
        lambda it: it.architecture in CONVNETS or it.architecture.partition(":")[0] in SPACES,
        "this is none of the 720 ConvNets and in no search space.\nTake the row out.",
    ),
    (lambda it: 0 <= it.seed < 2**63, "this is no seed.\nWrite a whole number from 0 to below 2**63."),
    (
        lambda it: it.accuracy is None or it.seconds > 0,
        "{seconds} seconds is no time.\nWrite what training and testing took.",
    ),
    (
        lambda it: (
            it.device.isprintable() and ((it.device.strip() and 1 <= it.threads <= _MOST_THREADS) or _nowhere(it))
        ),
        "it does not say on what device, with how many threads.\nWrite plain words and a number from 1.",
    ),
    (
        lambda it: _DIGEST.fullmatch(it.cell),
        "'{cell}' is no digest of a run.\nWrite the 16 digits of 0-9 and a-f that `fyi-bench ranking` wrote.",
    ),
)


def _nowhere(it: Any) -> bool:
    """Whether it is a failed network as `fyi-bench ranking` writes one: nothing is known of where it was trained."""
    return it.accuracy is None and (it.device, it.threads) == ("", 0)
