"""The continual protocol: after each step a new network, trained on the memory alone, tested on the classes seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from distill.image_set import ImageSet
from distill.optimisers import SGD
from distill.spaces import Space
from downstream.continual.buffer import SetBuffer, as_dataset
from downstream.continual.judge import StepScore, score
from downstream.continual.library import (
    MultiTaskModule,
    SupervisedPlugin,
    SupervisedTemplate,
    evaluator,
    nc_benchmark,
)
from downstream.continual.memory import images_worth
from downstream.continual.steps import Steps
from downstream.protocol import Protocol
from downstream.training import EVAL_BATCH, HERE, Conditions, Report, new_network, train
from fyi_bench import rng

ACCURACY_PREFIX = "Top1_Acc_Stream/eval_phase/test_stream"


def scenario(train_set: ImageSet, test_set: ImageSet, space: Space, steps: Steps, train_transform: Any = None) -> Any:
    """Avalanche's new-classes benchmark over these sets: `train_stream` and `test_stream`, an experience a step.

    train_transform: of the train images, which are tensors in `space`.
    """
    float_test = test_set.to_space(space)  # every evaluation reads it again
    return nc_benchmark(
        as_dataset(train_set, space),
        as_dataset(float_test, space),
        len(steps),
        task_labels=steps.kind == "task",
        fixed_class_order=list(steps.order),
        per_exp_classes=dict(enumerate(steps.sizes)),
        class_ids_from_zero_in_each_exp=steps.kind == "domain",
        train_transform=train_transform,
        eval_transform=None,
    )


class Masked(MultiTaskModule):
    """A network of which, for each image, only the answers of its task's classes count."""

    def __init__(self, network: nn.Module, steps: Steps):
        super().__init__()
        self.network = network
        mask = torch.full((len(steps), len(steps.order)), float("-inf"))
        for number, classes in enumerate(steps.classes):
            mask[number, torch.tensor(classes)] = 0.0
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor, task_labels: torch.Tensor) -> torch.Tensor:
        """Logits [N, classes], minus infinity outside of each image's task."""
        return self.network(x) + self.mask[task_labels]


class Answers(SupervisedPlugin):
    """Keeps what a strategy answers in its last evaluation, in the order of the test stream."""

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        self.found: list[torch.Tensor] = []

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.found.append(strategy.mb_output.argmax(dim=1).cpu())


def scored(strategy: Any, benchmark: Any, steps: Steps, step: int, test_labels: torch.Tensor) -> StepScore:
    """What a strategy knows after `step`, by Avalanche's evaluation of `test_stream[:step + 1]`.

    test_labels: classes of all test images. Accuracy is Avalanche's own number where it has the same meaning.
    """
    answers = next(plugin for plugin in strategy.plugins if isinstance(plugin, Answers))
    metrics = strategy.eval(benchmark.test_stream[: step + 1])
    # an experience's images stand in the order of the data, so they are those of its classes in turn
    labels = torch.cat([test_labels[torch.isin(test_labels, torch.tensor(c))] for c in steps.classes[: step + 1]])
    found = score(steps, step, labels, torch.cat(answers.found))
    told = [value for key, value in metrics.items() if key.startswith(ACCURACY_PREFIX)]
    accuracy = float(told[0]) if len(told) == 1 else found.accuracy
    return StepScore(**{**found.__dict__, "accuracy": accuracy})


@dataclass
class Rehearsal:
    """The continual protocol on one class order: Avalanche streams in, scores out.

    benchmark: from `scenario`; steps: what it was made of; sets: the condensed set of each step so far, or for the
    upper bound its real images; test_labels: classes of the test images; protocol: of the retraining.
    """

    benchmark: Any
    steps: Steps
    sets: Sequence[ImageSet]
    test_labels: torch.Tensor
    protocol: Protocol
    conditions: Conditions = HERE
    report: Report | None = None

    def after_step(self, step: int, seed: int) -> StepScore:
        """Train a new network on the memory after `step` (0-based) and test it on the classes seen so far.

        Its first weights, its batches and their augmentation are drawn anew at every step, as the published code does.
        """
        seed = rng.key_seed(seed, "continual step", step)
        # the storage policy before this step: earlier sets inside, this step's still to come
        memory = SetBuffer(sum(images_worth(one) for one in self.sets[: step + 1]))
        for earlier in self.sets[:step]:
            memory.append(earlier)
        network = new_network(self.protocol.eval_model, self.sets[0], seed, self.steps.outputs)
        with torch.random.fork_rng(devices=[]):  # data loaders draw a base seed from torch's global generator
            strategy = FromScratchOnMemory(
                network=network, memory=memory, coming=self.sets[step], settings=self, seed=seed
            )
            strategy.train(self.benchmark.train_stream[step])
            return scored(strategy, self.benchmark, self.steps, step, self.test_labels)


class FromScratchOnMemory(SupervisedTemplate):
    """Avalanche strategy: at each experience its set joins the memory, then a new network learns from that alone."""

    def __init__(self, *, network: nn.Module, memory: SetBuffer, coming: ImageSet, settings: Rehearsal, seed: int):
        super().__init__(
            model=Masked(network, settings.steps) if settings.steps.kind == "task" else network,
            optimizer=SGD(network.parameters(), lr=settings.protocol.lr),
            criterion=torch.nn.CrossEntropyLoss(),
            eval_mb_size=EVAL_BATCH,
            device=settings.conditions.device,
            plugins=[Answers()],
            evaluator=evaluator(),
        )
        self.network, self.memory, self.coming, self.settings, self.seed = network, memory, coming, settings, seed

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """None is needed: the trainer reads the memory."""

    def _train_exp(self, experience: Any, eval_streams: Any = None, **kwargs: Any) -> None:
        self.memory.append(self.coming)
        s = self.settings
        learned = s.steps.asked(self.memory.image_set)
        train(self.network, learned, s.protocol, self.seed, s.conditions, s.report)
