"""GSAM: the direction in which FTD's experts walk towards flat minima.

Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022, in the form of FTD's
published code (Du et al., CVPR 2023): from weights w with gradient g, go to w + e with
e = rho w² g / | |w| g | (adaptive) or rho g / |g|, take the gradient g_p there, and walk along g_p less alpha times
the part of g orthogonal to g_p. The step itself is plain SGD, and both gradients are of the same augmented batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

_TINY = 1e-12


@dataclass(frozen=True)
class GSAM:
    """rho: radius of the perturbation; alpha: weight of the orthogonal part; adaptive: radius scaled by |w|."""

    rho: float
    alpha: float
    adaptive: bool

    def perturbation(self, weights: Tensor, gradient: Tensor) -> Tensor:
        """e for weights and gradient [P]."""
        if not self.adaptive:
            return gradient * (self.rho / (gradient.norm() + _TINY))
        return weights.square() * gradient * (self.rho / ((weights.abs() * gradient).norm() + _TINY))

    def direction(self, gradient: Tensor, perturbed: Tensor) -> Tensor:
        """Where to walk, from the gradients [P] at w and at w + e."""
        size, size_perturbed = gradient.norm(), perturbed.norm()
        cosine = gradient @ perturbed / (size * size_perturbed + _TINY)
        along = perturbed * (cosine * size / (size_perturbed + _TINY))
        return perturbed - self.alpha * (gradient - along)

    def step(self, gradient_at: Callable[[Tensor], tuple[Tensor, Tensor]], weights: Tensor) -> tuple[Tensor, Tensor]:
        """(loss at w, direction); gradient_at(weights) gives (loss, gradient) of one fixed batch."""
        loss, gradient = gradient_at(weights)
        _, perturbed = gradient_at(weights + self.perturbation(weights, gradient))
        return loss, self.direction(gradient, perturbed)
