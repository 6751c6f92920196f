"""Scores of a condensed set that labels and augmentation cannot inflate, in the sense of DD-Ranking (Li et al., 2025).

Two gains hide in a plain accuracy: soft labels of a teacher, and augmentation while networks are retrained. Both help
random real images too, so a set is held against random images of the same number under the same treatment, and, with
hard labels, against all real images:

  recovery     HLR = real-hard - set-hard           how much of real training is lost, smaller is better
  improvement  IOR = set-any - random-any           what condensing gains over picking at random
  LRS = u(w IOR - (1 - w) HLR)                      label-robust score
  ARS = u(g (set-any - random-any) + (1 - g) (set-plain - random-plain))   augmentation-robust score
  u(a) = (e^a - 1/e) / (e - 1/e)

Every accuracy here is a fraction in [0, 1], so every argument of u lies in [-1, 1] and every score in [0, 1]. (The
published program enters percent into the exponential.) Every treatment gets the same search for its step size, judged
on train images that are set aside, never on test images; the learned step size of a set is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from distill.image_set import ImageSet
from distill.spaces import Space
from downstream.protocol import Protocol, protocol_data
from fyi_bench import rng
from fyi_bench.errors import UsageError

NUMERICS = 1
SPLIT_SEED = 0  # one split for all sets and seeds, so that all searches are judged by the same images
_TEACHER_BATCH = 256


@dataclass(frozen=True)
class Treatment:
    """One treatment whose accuracy the scores need.

    subject: 'real' (all train images), 'set', or 'random' (real images, as many of each class as the set has).
    labels: 'hard', or 'own': those of the set, and for random images a teacher's where the set's are soft.
    augmented: whether retraining augments as the protocol says, or not at all.
    """

    name: str
    subject: str
    labels: str
    augmented: bool = True


TREATMENTS = (
    Treatment("real-hard", "real", "hard"),
    Treatment("set-hard", "set", "hard"),
    Treatment("set-any", "set", "own"),
    Treatment("random-any", "random", "own"),
    Treatment("set-plain", "set", "own", augmented=False),
    Treatment("random-plain", "random", "own", augmented=False),
)


@dataclass(frozen=True)
class Rules:
    """What robust scores need beside the trainer's protocol.

    lrs: step sizes tried; validation: share of the train images set aside to judge them; real_images: how many stand
    for all (0: all); label_weight, augmentation_weight: w of LRS, g of ARS.
    """

    lrs: tuple[float, ...]
    validation: float
    real_images: int
    label_weight: float
    augmentation_weight: float


def rules_of(protocol: str) -> Rules:
    """The rules of a protocol; a changed one (`quick+epochs=3`) has those of its base. UsageError where it has none."""
    base = protocol.split("+")[0]
    table = protocol_data(base).get("robust")
    if table is None:
        raise UsageError(f"The protocol '{base}' has no settings for robust scores.\nUse paper or quick.")
    return Rules(**{**table, "lrs": tuple(table["lrs"])})


def unit_score(advantage: float) -> float:
    """u: an advantage in [-1, 1] as a score in [0, 1]; 0 gives 0.269."""
    return (math.exp(advantage) - math.exp(-1)) / (math.e - math.exp(-1))


@dataclass(frozen=True)
class Scores:
    """The four numbers of one repetition, fractions: `recovery` in [-1, 1], 0 is best; scores in [0, 1], 1 is best."""

    recovery: float
    improvement: float
    label_robust: float
    augmentation_robust: float


def robust_scores(accuracy: Mapping[str, float], rules: Rules) -> Scores:
    """The scores of one repetition from the accuracy of every treatment, by name.

    Raises UsageError for an accuracy that is no fraction in [0, 1]: percent would pass through u unnoticed.
    """
    for name, value in accuracy.items():
        if not 0.0 <= value <= 1.0:
            raise UsageError(f"The accuracy of '{name}' is {value:g}.\nGive fractions in [0, 1], not percent.")
    recovery = accuracy["real-hard"] - accuracy["set-hard"]
    improvement = accuracy["set-any"] - accuracy["random-any"]
    plain = accuracy["set-plain"] - accuracy["random-plain"]
    w, g = rules.label_weight, rules.augmentation_weight
    return Scores(
        recovery,
        improvement,
        unit_score(w * improvement - (1 - w) * recovery),
        unit_score(g * improvement + (1 - g) * plain),
    )


def settings_of(treatment: Treatment, protocol: Protocol, lr: float) -> Protocol:
    """The trainer's settings of a treatment at a step size of the search."""
    searched = replace(protocol, lr=lr, lr_from_set=False)
    return searched if treatment.augmented else replace(searched, eval_augment="none", cutmix=0.0)


def best_lr(validation: Mapping[float, float]) -> float:
    """The step size with the best accuracy on the images set aside; the smaller of equal ones."""
    return max(sorted(validation), key=lambda lr: validation[lr])


def set_aside(train: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """(the rest, the images set aside): this share of each class, at least one, drawn once for all sets.

    Raises UsageError where a class has too few images for both.
    """
    held = torch.zeros(len(train), dtype=torch.bool)
    for label in train.classes:
        members = train.indices_of(label)
        count = max(1, round(share * len(members)))
        if count >= len(members):
            raise UsageError(f"Class {label} has {len(members)} images: too few to set {share:.0%} aside.")
        order = torch.randperm(len(members), generator=rng.stream(SPLIT_SEED, "robust validation", label))
        held[members[order[:count]]] = True
    return train.select((~held).nonzero().flatten()), train.select(held.nonzero().flatten())


def random_like(pool: ImageSet, counts: Sequence[int], seed: int) -> ImageSet:
    """Real images of the pool, as many of each class as asked for, drawn by the seed; hard labels.

    Raises UsageError where the pool has fewer.
    """
    rows = []
    for label, count in enumerate(counts):
        members = pool.indices_of(label)
        if count > len(members):
            raise UsageError(f"The set has {count} images of class {label}, the real data only {len(members)}.")
        order = torch.randperm(len(members), generator=rng.stream(seed, "robust random", label))
        rows.append(members[order[:count]])
    return pool.select(torch.cat(rows))


@torch.no_grad()
def taught(images: ImageSet, teacher: nn.Module, teacher_space: Space) -> ImageSet:
    """The images with the teacher's logits as soft labels; the teacher sees them in its own space, unaugmented."""
    teacher.eval()
    device = next(teacher.parameters()).device
    parts = torch.arange(len(images)).split(_TEACHER_BATCH)
    logits = [teacher(images.batch(rows, teacher_space).to(device)).float().cpu() for rows in parts]
    return replace(images, labels=torch.cat(logits), label_kind="logits")
