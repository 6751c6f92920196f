"""What engine, methods and their callers promise each other: one matching step, checkpoints, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from distill.captured import upload
from distill.decoders import Decoder
from distill.fyi import Flip
from distill.problem import Problem
from fyi_bench import rng

Tensors = dict[str, torch.Tensor]

# what is trained, a set or a network, diverged when its loss is so many times what it was at the start, or 1 if more
MOST_LOSS_GROWTH = 1e6


class Checkpointer(Protocol):
    """Where checkpoints live; the store provides one, a caller without a store needs none."""

    def save(self, step: int, tensors: Tensors, meta: dict[str, Any]) -> None: ...

    def load(self, take: Callable[[int, Tensors], None]) -> tuple[int, Tensors, dict[str, Any]] | None:
        """The newest checkpoint that is whole and that `take(step, tensors)` takes: else it raises ValueError."""


class Resumable(Protocol):
    """A computation that can go on from a checkpoint of its own."""

    def tensors(self) -> Tensors:
        """The tensors that a checkpoint written now would hold."""

    def take(self, step: int, tensors: Tensors) -> None:
        """Go on from what was saved after `step`; what it raises for other tensors is no matter."""


R = TypeVar("R", bound=Resumable)


def resumed(begin: Callable[[], R], keeper: Checkpointer | None) -> R:
    """A computation at its newest checkpoint, or as `begin()` makes it where there is none.

    A checkpoint is refused like a damaged one where its tensors cannot be taken, or are not by name, type and shape
    those that the computation would then save.
    """
    found = [begin()]

    def take(step: int, tensors: Tensors) -> None:
        run = found.pop() if found else begin()  # one that failed to take may have taken a part
        try:
            run.take(step, tensors)
            check_alike(tensors, run.tensors())
        except torch.OutOfMemoryError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"its tensors are not those of the run ({str(error).partition(chr(10))[0]})") from error
        found.append(run)

    if keeper is not None:
        keeper.load(take)
    return found.pop() if found else begin()


def check_alike(found: Tensors, wanted: Tensors) -> None:
    """Raise ValueError with the names of which one has no tensor, or one of another type or shape."""
    layouts = [{name: (each.dtype, each.shape) for name, each in tensors.items()} for tensors in (found, wanted)]
    if other := sorted({name for name, _ in layouts[0].items() ^ layouts[1].items()}):
        raise ValueError(", ".join(other[:3]))


class Deadline(Protocol):
    """Says when to stop at the next safe point, and raises the right error for it."""

    def requested(self) -> bool: ...

    def check(self) -> None: ...


class Decodes(Protocol):
    """A method, as far as a matching step needs it: what it stores, turned into images."""

    def decode(self, images: torch.Tensor, extras: Tensors) -> torch.Tensor: ...


@dataclass(frozen=True)
class Stored:
    """What a method gives for the set of what it has learned.

    images: [C·n, …], class-major: images, or rows of the decoder. labels: float [C·n, C] where they are soft; hard ones
    are known. lr: step size, or one for each of the ordered steps [T].
    """

    images: torch.Tensor
    lr: torch.Tensor | None = None
    decoder: Decoder | None = None
    labels: torch.Tensor | None = None
    label_kind: str = "logits"


@dataclass
class Context:
    """One matching step as a method sees it.

    images: the learned leaf [C·n, ch, H, W], or rows of a stored form; labels: int64 [C·n], 0 .. C - 1; extras: further
    learned tensors.
    """

    problem: Problem
    method: Decodes
    flip: Flip
    images: torch.Tensor
    labels: torch.Tensor
    extras: Tensors = field(default_factory=dict)
    iteration: int = 0
    match: int = 0

    def stream(self, *keys: rng.Key) -> torch.Generator:
        """Generator keyed by this iteration, matching step and the keys; the same for both arms of a comparison."""
        return self.problem.stream(*keys, self.iteration, self.match)

    def synthetic(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """All synthetic images as a network sees them, [C, n', ch, H, W]: decoded, then expanded by the flip.

        chosen: what the flip leaves to chance (`flip_draw`), drawn here where it is not given.
        """
        images = self.method.decode(self.per_class, self.extras)
        chosen = self.flip_draw(images.shape[:2]) if chosen is None else chosen
        return self.flip.expand_classes(images, chosen=chosen)

    @property
    def per_class(self) -> torch.Tensor:
        """The learned images class by class, [C, n, ch, H, W]."""
        return self.images.unflatten(0, (self.problem.num_classes, -1))

    def flip_draw(self, shape: Sequence[int], *keys: rng.Key) -> torch.Tensor:
        """What the flip leaves to chance for images [*shape, ch, H, W], on their device."""
        return upload(self.flip.draw(shape, self.stream("flip", *keys)), self.images.device)

    def real_rows(self, count: int) -> torch.Tensor:
        """int64 [C, k] on the device: which real images are this matching step's, for `Problem.images_at`."""
        return upload(self.problem.draw_rows(count, "real", self.iteration, self.match), self.images.device)

    def real(self, count: int) -> torch.Tensor:
        """Fresh real batch [C, k, ch, H, W] of this matching step; a class with fewer images repeats them."""
        return self.problem.images_at(self.real_rows(count))
