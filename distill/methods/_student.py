"""What methods have in common that differentiate through a student's training (with an underscore: no method)."""

from __future__ import annotations

from torch import Tensor

from distill.augment import Draw
from distill.fyi import Flip
from distill.method import Method, MethodConfig
from distill.problem import Problem
from distill.trajectory import View


class StudentMethod(Method):
    """A method with a student that takes steps on synthetic images."""

    def __init__(self, config: MethodConfig, problem: Problem):
        super().__init__(config, problem)
        self._views: dict[str, View] = {}

    def view(self, flip: Flip) -> View:
        """What the student sees of images [b, …]: expanded by the flip, then augmented; one function a flip.

        Its inputs are the labels, codes and values of a draw, and what the flip leaves to chance.
        """
        augmentation = self.augmentation

        def seen(
            picked: Tensor, labels: Tensor, codes: Tensor, values: Tensor, chosen: Tensor
        ) -> tuple[Tensor, Tensor]:
            x, y = flip.expand(picked, labels, chosen=chosen)
            return augmentation.apply(x, Draw(augmentation.stages, codes, values)), y

        return self._views.setdefault(flip.name, seen)
