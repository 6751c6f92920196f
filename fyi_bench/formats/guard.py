"""Do the labels of a set fit its images? Asked of real images: of which class is each image most likely?

Images are pooled to at most 8 x 8 pixels and compared with the means of the real classes, in the metric of the spread
within classes (linear discriminants, fitted to half of the real images that are taken). On the other half it is counted
how often the own class comes first, second … That gives the odds of the labels: how likely their ranks are for right
labels, against labels by chance, where every rank is as likely as any other. Doubt is told where chance is a hundred
times likelier: with right labels and images as typical as real ones this is so for at most one set in a hundred, of any
size; of few images little is found. Images that are not typical (farther from every class than real ones are, as of DM
or under ZCA, or all alike, as what was hardly trained) rank by artefacts, right labels or not: of them nothing is told.
docs/formats.md has what was measured.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from distill.decode import decoded
from distill.image_set import ImageSet
from fyi_bench.data.load import load_dataset
from fyi_bench.errors import DataError, FyiBenchError
from fyi_bench.formats.base import Imported
from fyi_bench.formats.classes import in_order_of

_log = logging.getLogger("fyi_bench.formats")
_SIDE = 8
_REAL = 400  # of each class, or fewer where there are many classes
_MOST_REAL = 20_000
_FEWEST_REAL = 20
_MOST_IMAGES = 2_000
_SHRINK = 0.05
_CHANCE = 0.1  # share of images that may be as untypical as by chance, though their labels are right
_ODDS = 100.0
_TAIL = 0.01  # of real images on either side are farther from the nearest class, or nearer, than a typical one
_MOSTLY = 0.5  # share of the images that must be typical for a judgement


@dataclass(frozen=True)
class Agreement:
    """nearest: share of the images whose own class is the likeliest; real: that of real images; odds: log10 of the
    odds of right labels against labels by chance; typical: share that is as near to a class as real images are."""

    images: int
    classes: int
    nearest: float
    real: float
    odds: float
    typical: float

    @property
    def judged(self) -> bool:
        """Whether enough of the images look like real ones for a judgement."""
        return self.typical >= _MOSTLY

    @property
    def doubtful(self) -> bool:
        """Whether chance explains the labels of typical images a hundred times better."""
        return self.judged and self.odds < -math.log10(_ODDS)

    @property
    def doubt(self) -> str:
        """What is told of doubtful labels, with the figure."""
        return (
            f"labels look permuted: the own class is the nearest real class mean of {self.nearest:.0%} of {self.images}"
            f" images (chance {1 / self.classes:.0%}, real images {self.real:.0%})"
        )


@dataclass(frozen=True)
class Guard:
    """Discriminants of a real set, and how often the own class of its images comes first, second …

    metric: the inverse of the spread within classes; span: typical squared distances from the nearest class.
    """

    weights: torch.Tensor
    offset: torch.Tensor
    metric: torch.Tensor
    shares: torch.Tensor
    span: tuple[float, float]

    @classmethod
    def of(cls, real: ImageSet) -> Guard:
        """Fitted to half of some real images of each class, counted on the other half."""
        classes = real.num_classes
        each = min(_REAL, max(20, _MOST_REAL // classes))
        rows = torch.cat([real.indices_of(label)[:each] for label in range(classes)])
        y = real.labels[rows]
        z = torch.cat([_features(real.batch(part)) for part in rows.split(1024)])
        fitted = torch.arange(len(rows)) % 2 == 0
        weights, offset, metric = _discriminants(z[fitted], y[fitted], classes)
        scores = z[~fitted] @ weights + offset
        seen = torch.bincount(_ranks(scores, y[~fitted]), minlength=classes).double()
        low, high = _distances(z[~fitted], metric, scores).quantile(torch.tensor([_TAIL, 1 - _TAIL]).double()).tolist()
        return cls(weights, offset, metric, seen / seen.sum(), (low, high))

    def judge(self, image_set: ImageSet) -> Agreement:
        """How well the labels of a set fit its images. Raises DataError where its pixels cannot be computed here."""
        s, classes = decoded(image_set), len(self.shares)
        s = s.select(torch.arange(0, len(s), -(-len(s) // _MOST_IMAGES)))
        z = _features(s.pixels())
        scores = z @ self.weights + self.offset
        ranks, far = _ranks(scores, s.hard_labels), _distances(z, self.metric, scores)
        likely = (1 - _CHANCE) * self.shares + _CHANCE / classes
        odds = float((likely[ranks] * classes).log10().sum())
        typical = float(((far >= self.span[0]) & (far <= self.span[1])).double().mean())
        return Agreement(len(s), classes, float((ranks == 0).double().mean()), float(self.shares[0]), odds, typical)


def label_agreement(image_set: ImageSet, real: ImageSet) -> Agreement | None:
    """How well the labels of a set fit its images; None where its pixels cannot be computed, or real images are few."""
    if int(real.counts.min()) < _FEWEST_REAL:
        return None
    try:
        return Guard.of(real).judge(image_set)
    except DataError:  # whitened by a matrix that is not on this machine
        return None


def agreement_of(imported: Imported, data_root: str | Path | None) -> Agreement | None:
    """How well the labels of a file fit its images; None where its data set is not known, or not on this machine."""
    try:
        data = load_dataset(imported.dataset, data_root, test=False, download=False) if imported.dataset else None
        if data is None or (imported.image_set.shape, imported.image_set.num_classes) != (
            data.train.shape,
            data.num_classes,
        ):
            return None
        return label_agreement(in_order_of(imported.image_set, data)[0], data.train)
    except FyiBenchError as error:
        _log.debug("labels were not compared with real images: %s", error)
        return None


def _features(pixels: torch.Tensor) -> torch.Tensor:
    side = min(_SIDE, *pixels.shape[2:])
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), side).flatten(1).double()


def _discriminants(x: torch.Tensor, y: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights [F, C] and offsets [C] of the linear discriminants, and their metric [F, F]."""
    means = torch.stack([x[y == label].mean(0) for label in range(classes)])
    within = x - means[y]
    spread = within.T @ within / len(x)
    spread += _SHRINK * spread.diagonal().mean() * torch.eye(len(spread), dtype=spread.dtype)
    metric = torch.linalg.inv(spread)
    weights = metric @ means.T
    return weights, -(means.T * weights).sum(0) / 2, metric


def _distances(x: torch.Tensor, metric: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Squared distances from the nearest class mean."""
    return ((x @ metric) * x).sum(1) - 2 * scores.amax(1)


def _ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """How many classes are likelier than the own one."""
    return (scores > scores.gather(1, labels[:, None])).sum(1)
