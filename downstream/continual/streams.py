"""Strategies of Avalanche that learn from the current step's real images, with a memory beside them or without one.

One network goes through all steps. Its step size stays; its images are cropped and mirrored at random, as in the code
of ER, iCaRL and DER. Numbers are of the last epoch of each step; nothing is chosen.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from distill.image_set import ImageSet
from distill.optimisers import SGD
from distill.spaces import Space
from downstream.continual.buffer import SetBuffer
from downstream.continual.judge import StepScore
from downstream.continual.library import (
    DER,
    ClassBalancedBuffer,
    ClassBalancedBufferWithLogits,
    ExperienceBalancedBuffer,
    ICaRL,
    Naive,
    ReplayPlugin,
    SupervisedPlugin,
    evaluator,
)
from downstream.continual.memory import images_worth
from downstream.continual.rehearsal import Answers, Masked, scenario, scored
from downstream.continual.steps import Steps
from downstream.protocol import Protocol
from downstream.training import EVAL_BATCH, HERE, Conditions
from fyi_bench import rng
from fyi_bench.errors import DivergenceError, UnknownNameError, UsageError

_OVER_ALL = ("icarl", "der++")
REPLAY = "replay"  # the current step's images and a memory of sets: experience replay
ALPHA, BETA = 0.1, 0.5  # of DER++ (Buzzega et al., NeurIPS 2020), as Avalanche has them


class _Given(SetBuffer):
    """Memory of sets that are there already: each experience adds its own."""

    def __init__(self, sets: Sequence[ImageSet]):
        super().__init__(sum(map(images_worth, sets)))
        self.coming = list(sets)

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Append the set of the experience."""
        self.append(self.coming[len(self.sets)], exp.dataset)


@dataclass
class Stream:
    """One network through all steps of a class order, by a strategy of `STRATEGIES`.

    train, test: of the data set. memory: images a class that a strategy may keep of its own choice (er, icarl, der++);
    sets: the memory of each step for 'replay'. report(steps done).
    """

    name: str
    steps: Steps
    train: ImageSet
    test: ImageSet
    space: Space
    protocol: Protocol
    memory: int = 0
    sets: Sequence[ImageSet] = ()
    conditions: Conditions = HERE
    report: Callable[[int], None] = field(default=lambda done: None)

    def run(self, seed: int) -> list[StepScore]:
        """Scores after each step. Raises DivergenceError when weights are no longer finite."""
        check_strategy(self.name, self.steps.kind)
        benchmark = scenario(self.train, self.test, self.space, self.steps, _crops(self))
        with _lent(rng.stream(seed, "continual stream")):
            strategy = STRATEGIES[self.name](self, _network(self, seed))
            found = []
            for step, experience in enumerate(benchmark.train_stream):
                strategy.train(experience, num_workers=0)
                if not all(bool(torch.isfinite(p).all()) for p in strategy.model.parameters()):
                    raise DivergenceError(
                        f"{self.name} diverged in step {step + 1}: its weights are no longer finite.\n"
                        f"Lower the step size: --set lr={self.protocol.lr / 10:g}.",
                        step=step,
                    )
                found.append(scored(strategy, benchmark, self.steps, step, self.test.hard_labels))
                self.report(step + 1)
        return found


def check_strategy(name: str, kind: str) -> None:
    """Raise UnknownNameError for a strategy that is not known, UsageError for one that a scenario does not suit."""
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, STRATEGIES)
    if kind == "task" and name in _OVER_ALL:
        raise UsageError(f"{name} compares answers for all classes, so it knows no tasks.\nLeave it out of --against.")


@contextlib.contextmanager
def _lent(generator: torch.Generator) -> Iterator[None]:
    """Avalanche draws from the global generators: they start from this one, and are put back afterwards."""
    python = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        random.setstate(random.Random(generator.initial_seed()).getstate())
        try:
            yield
        finally:
            random.setstate(python)


def _network(stream: Stream, seed: int) -> nn.Module:
    import search_space

    channels, size, _ = stream.train.shape
    generator = rng.stream(seed, "evaluation")
    network = search_space.build(stream.protocol.eval_model, channels, size, stream.steps.outputs, generator)
    return Masked(network, stream.steps) if stream.steps.kind == "task" else network


def _crops(stream: Stream) -> Any:
    """Random crops out of a border of an eighth, and mirroring where the protocol augments by it."""
    from torchvision import transforms

    size = stream.train.shape[-1]
    flips = "flip" in stream.protocol.eval_augment.split("_")
    parts = [transforms.RandomCrop(size, padding=size // 8), *([transforms.RandomHorizontalFlip()] if flips else [])]
    return transforms.Compose(parts)


class _Watch(SupervisedPlugin):
    """Stops between batches when it is time."""

    def __init__(self, conditions: Conditions):
        super().__init__()
        self.stop = conditions.stop

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if self.stop is not None and self.stop.requested():
            self.stop.check()


def _common(stream: Stream, network: nn.Module, *plugins: SupervisedPlugin) -> dict[str, Any]:
    p = stream.protocol
    optimiser = SGD(network.parameters(), lr=p.lr, momentum=p.momentum, weight_decay=p.weight_decay)
    return {
        "optimizer": optimiser,
        "train_mb_size": p.batch,
        "train_epochs": p.epochs,
        "eval_mb_size": EVAL_BATCH,
        "device": stream.conditions.device,
        "plugins": [*plugins, Answers(), _Watch(stream.conditions)],
        "evaluator": evaluator(),
    }


def _naive(stream: Stream, network: nn.Module, *plugins: SupervisedPlugin) -> Any:
    return Naive(model=network, criterion=nn.CrossEntropyLoss(), **_common(stream, network, *plugins))


def _total(stream: Stream) -> int:
    return stream.memory * len(stream.steps.order)


def _er(stream: Stream, network: nn.Module) -> Any:
    # equally many of each class, from its first step on; of each step where classes share their answers
    policy = (
        ExperienceBalancedBuffer(_total(stream), adaptive_size=False, num_experiences=len(stream.steps))
        if stream.steps.kind == "domain"
        else ClassBalancedBuffer(_total(stream), adaptive_size=False, total_num_classes=len(stream.steps.order))
    )
    return _naive(stream, network, ReplayPlugin(mem_size=_total(stream), storage_policy=policy))


def _replay(stream: Stream, network: nn.Module) -> Any:
    memory = _Given([stream.steps.asked(one) for one in stream.sets])
    return _naive(stream, network, ReplayPlugin(mem_size=int(memory.max_size), storage_policy=memory))


def _icarl(stream: Stream, network: nn.Module) -> Any:
    network.classifier, head = nn.Identity(), network.classifier
    whole = nn.ModuleList([network, head])
    return ICaRL(
        feature_extractor=network,
        classifier=head,
        memory_size=stream.memory,
        buffer_transform=_crops(stream),
        fixed_memory=False,
        **_common(stream, whole),
    )


def _der(stream: Stream, network: nn.Module) -> Any:
    strategy = DER(
        model=network,
        criterion=nn.CrossEntropyLoss(),
        mem_size=_total(stream),
        batch_size_mem=min(stream.protocol.batch, stream.memory * stream.steps.sizes[0]),
        alpha=ALPHA,
        beta=BETA,
        **_common(stream, network),
    )
    classes = len(stream.steps.order)
    if stream.steps.kind != "domain":  # as many images a class as every other memory
        strategy.storage_policy = ClassBalancedBufferWithLogits(
            _total(stream), adaptive_size=False, total_num_classes=classes
        )
    return strategy


# name -> (stream, fresh network) to an Avalanche strategy
STRATEGIES: Mapping[str, Callable[[Stream, nn.Module], Any]] = {
    "fine-tuning": _naive,
    "er": _er,
    "icarl": _icarl,
    "der++": _der,
    REPLAY: _replay,
}
