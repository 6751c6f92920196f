"""Class-incremental learning from distilled memory, on Avalanche.

Protocol (DM's continual experiment, followed by FYI Fig. E): classes come in steps; each step's set is distilled from
that step's classes only and appended to the memory; after each step a new network with a head for all classes is
trained from scratch on the memory alone and tested on the classes seen so far.

Avalanche provides the scenario, the storage-policy interface, the strategy and the metrics; training is this
project's one trainer. Avalanche is imported inside functions, because importing it patches torch's Dataset.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from distill.decode import decoded
from distill.engine import distill
from distill.image_set import ImageSet, concatenate
from distill.methods import config_of
from distill.problem import Problem
from distill.recipes import recipe
from distill.spaces import PixelSpace, Space
from downstream.protocol import Protocol
from downstream.training import EVAL_BATCH, HERE, Conditions, Report, new_network, train
from fyi_bench import rng
from fyi_bench.errors import DataError, UsageError

NUMERICS = 2
ACCURACY_PREFIX = "Top1_Acc_Stream/eval_phase/test_stream"

Condense = Callable[[Any], ImageSet]  # Avalanche experience -> condensed set with original labels


def class_order(seed: int, classes: int) -> list[int]:
    """Class order of a seed: the permutation that numpy's legacy generator gives, as in the published code."""
    return np.random.RandomState(seed).permutation(classes).tolist()


def step_classes(order: Sequence[int], steps: int) -> list[list[int]]:
    """Classes that each step brings, in order. Raises UsageError when the steps do not divide the classes."""
    if steps < 1 or len(order) % steps:
        possible = [d for d in range(1, len(order) + 1) if len(order) % d == 0]
        raise UsageError(
            f"{steps} steps do not divide {len(order)} classes.\nChoose --steps from {', '.join(map(str, possible))}."
        )
    size = len(order) // steps
    return [list(order[i * size : (i + 1) * size]) for i in range(steps)]


@functools.cache
def avalanche() -> SimpleNamespace:
    """The parts of Avalanche in use, imported once; a DataError says how to get it when it is missing."""
    try:
        import search_space.torchvision_compat  # noqa: F401  Avalanche imports torchvision

        with warnings.catch_warnings():  # its dependency qpsolvers warns of solvers that nothing here uses
            warnings.simplefilter("ignore")
            from avalanche.benchmarks import class_incremental_benchmark
        from avalanche.benchmarks.utils import as_classification_dataset
        from avalanche.evaluation.metrics import accuracy_metrics
        from avalanche.logging import BaseLogger
        from avalanche.training.plugins import EvaluationPlugin
        from avalanche.training.storage_policy import ExemplarsBuffer
        from avalanche.training.templates import SupervisedTemplate
    except ImportError as error:
        raise DataError(
            f"Continual learning needs Avalanche, which cannot be imported ({error}).\n"
            "Install it: pip install 'avalanche-lib==0.6.0'."
        ) from error
    return SimpleNamespace(
        class_incremental_benchmark=class_incremental_benchmark,
        as_classification_dataset=as_classification_dataset,
        accuracy_metrics=accuracy_metrics,
        BaseLogger=BaseLogger,
        EvaluationPlugin=EvaluationPlugin,
        ExemplarsBuffer=ExemplarsBuffer,
        SupervisedTemplate=SupervisedTemplate,
    )


class TensorImages(torch.utils.data.Dataset):
    """Images of a set as a torch dataset of (float [ch, H, W] in `space`, int label), with Avalanche's `targets`."""

    def __init__(self, image_set: ImageSet, space: Space):
        image_set = decoded(image_set)
        self.images, self.source, self.space = image_set.images, image_set, space
        if image_set.images.is_floating_point():
            self.images = image_set.to_space(space).images
        self.targets: list[int] = image_set.hard_labels.tolist()
        self.classes = list(image_set.class_names)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        if not image.is_floating_point():
            image = self.source.batch(slice(index, index + 1), self.space)[0]
        return image, self.targets[index]


def as_dataset(image_set: ImageSet, space: Space | None = None) -> Any:
    """An ImageSet as an Avalanche classification dataset."""
    return avalanche().as_classification_dataset(TensorImages(image_set, space or image_set.space))


def scenario(train_set: ImageSet, test_set: ImageSet, space: Space, order: Sequence[int], steps: int) -> Any:
    """Avalanche's class-incremental benchmark over these sets: `train_stream` and `test_stream` of `steps` each."""
    step_classes(order, steps)
    float_test = test_set.to_space(space)  # every evaluation reads it again
    return avalanche().class_incremental_benchmark(
        {"train": as_dataset(train_set, space), "test": as_dataset(float_test, space)},
        class_order=list(order),
        num_experiences=steps,
    )


def images_worth(image_set: ImageSet) -> int:
    """Images a set stores, or as many float32 images as have the bytes of its rows and decoder, rounded up."""
    if image_set.decoder is None:
        return len(image_set)
    return math.ceil((image_set.nbytes - image_set.labels.nbytes) / (4 * math.prod(image_set.shape)))


@functools.cache
def condensed_buffer_class() -> type:
    """The storage policy as a subclass of Avalanche's ExemplarsBuffer (made when Avalanche is first needed)."""

    base: Any = avalanche().ExemplarsBuffer

    class CondensedBuffer(base):
        """Memory of condensed sets: each experience is distilled and its set appended."""

        def __init__(self, condense: Condense, max_size: int):
            super().__init__(max_size)
            self.condense = condense
            self.sets: list[ImageSet] = []

        def post_adapt(self, agent_state: Any, exp: Any) -> None:
            """Distil the experience's classes and append the set to the memory."""
            self.append(self.condense(exp))

        def append(self, image_set: ImageSet) -> None:
            """Add a finished set. Raises DataError when the memory would exceed its size."""
            size = images_worth(image_set) + sum(images_worth(s) for s in self.sets)
            if size > self.max_size:
                raise DataError(
                    f"The memory would hold {size} images, more than its {self.max_size}.\n"
                    "Raise max_size or lower the images per class."
                )
            self.sets.append(image_set)
            self.buffer = as_dataset(self.image_set)

        @property
        def image_set(self) -> ImageSet:
            """The whole memory as one ImageSet."""
            return concatenate(self.sets)

        def resize(self, strategy: Any, new_size: int) -> None:
            """Condensed images are not dropped one by one: shrinking below what is held raises DataError."""
            if new_size < sum(images_worth(s) for s in self.sets):
                raise DataError("A condensed memory cannot be shrunk.\nDistil again with fewer images per class.")
            self.max_size = new_size

    return CondensedBuffer


def condensed_buffer(
    method: str = "dsa",
    fyi: bool = True,
    *,
    flip: str | None = None,
    ipc: int | None = None,
    max_size: int = 200,
    num_classes: int | None = None,
    dataset: str = "cifar100",
    protocol: str = "quick",
    seed: int = 0,
    overrides: dict[str, str] | None = None,
    space: Space | None = None,
) -> Any:
    """A storage policy for Avalanche's own plugins that distils each experience it meets.

    `ReplayPlugin(mem_size=200, storage_policy=condensed_buffer("dsa", fyi=True))`, or as the `storage_policy` of a
    GDumbPlugin. Images are condensed and kept in the space in which the benchmark's dataset gives them (`space` only
    documents it). ipc: images per class, by default max_size divided by all classes of the benchmark.
    dataset, protocol, overrides: which recipe to use.
    """

    def condense(exp: Any) -> ImageSet:
        everything = {int(c) for e in exp.origin_stream for c in e.classes_in_this_experience}
        images, labels = zip(*((image, int(label)) for image, label, *_ in exp.dataset), strict=True)
        classes = num_classes or max(everything) + 1
        real = ImageSet(torch.stack(images), torch.tensor(labels), space or PixelSpace(), classes).validate()
        per_class = ipc or max(1, max_size // len(everything))
        values = recipe(method, dataset, per_class, protocol).with_overrides(overrides or {}).values
        problem = Problem(real, real.space, per_class, seed, classes=tuple(exp.classes_in_this_experience))
        return distill(problem, method, config_of(method, values), flip or ("fyi" if fyi else "none"))

    return condensed_buffer_class()(condense, max_size)


@dataclass(frozen=True)
class StepResult:
    """Accuracy in [0, 1] on the test images of all classes seen after a step."""

    step: int
    classes_seen: int
    images: int
    accuracy: float


@dataclass
class Rehearsal:
    """The continual protocol on one class order: Avalanche streams in, accuracies out.

    benchmark: from `scenario`; sets: the condensed set of each step so far; protocol: of the retraining.
    """

    benchmark: Any
    sets: Sequence[ImageSet]
    protocol: Protocol
    conditions: Conditions = HERE
    report: Report | None = None

    def after_step(self, step: int, seed: int) -> StepResult:
        """Train a new network on the memory after `step` (0-based) and test it on the classes seen so far.

        Its first weights, its batches and their augmentation are drawn anew at every step, as the published code does.
        """
        seed = rng.key_seed(seed, "continual step", step)
        # the storage policy before this step: earlier sets inside, this step's still to come
        most = sum(images_worth(s) for s in self.sets[: step + 1])
        memory = condensed_buffer_class()(lambda exp: self.sets[step], most)
        for earlier in self.sets[:step]:
            memory.append(earlier)
        network = new_network(self.protocol.eval_model, self.sets[0], seed)
        with torch.random.fork_rng(devices=[]):  # data loaders draw a base seed from torch's global generator
            strategy = _strategy_class()(network=network, memory=memory, settings=self, seed=seed)
            strategy.train(self.benchmark.train_stream[step])
            metrics = strategy.eval(self.benchmark.test_stream[: step + 1])
        accuracy = next(v for k, v in metrics.items() if k.startswith(ACCURACY_PREFIX))
        seen = sum(len(e.classes_in_this_experience) for e in self.benchmark.test_stream[: step + 1])
        return StepResult(step, seen, memory.image_set.items, float(accuracy))


@functools.cache
def _strategy_class() -> type:
    base: Any = avalanche().SupervisedTemplate

    class FromScratchOnMemory(base):
        """Avalanche strategy: at each experience update the memory, then train a new network on it alone."""

        def __init__(self, *, network: torch.nn.Module, memory: Any, settings: Rehearsal, seed: int):
            super().__init__(
                model=network,
                optimizer=torch.optim.SGD(network.parameters(), lr=settings.protocol.lr),
                criterion=torch.nn.CrossEntropyLoss(),
                eval_mb_size=EVAL_BATCH,
                device=settings.conditions.device,
                evaluator=avalanche().EvaluationPlugin(
                    avalanche().accuracy_metrics(stream=True), loggers=[avalanche().BaseLogger()]
                ),
            )
            self.memory, self.settings, self.seed = memory, settings, seed

        def make_train_dataloader(self, **kwargs: Any) -> None:
            """None is needed: the trainer reads the memory."""

        def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
            self.memory.post_adapt(self, experience)
            s = self.settings
            train(self.model, self.memory.image_set, s.protocol, self.seed, s.conditions, s.report)

    return FromScratchOnMemory
