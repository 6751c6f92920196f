"""FTD: trajectory matching with experts that walk through flat regions, and averaged images.

Paper:  Du et al., "Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation", CVPR 2023.
        FYI on top of it: Son et al., ECCV 2024, Table 1 (no code was published; inferred from MTT with FYI).
Objective: as MTT (mtt.py), the experts trained with GSAM (gsam.py). The result is the running average of the images
        after every step, E <- d E + (1 - d) S from the first images on.
FYI:    as MTT.
Recipe: ftd.toml. Published on CIFAR-10 (FYI Table 1): 46.8 / 66.6 / 73.8 % at 1 / 10 / 50 images a class, with
        FYI 49.5 / 68.1 / 74.5 %. The published program evaluates the average with the network it has just trained on
        the images themselves, so that it trains twice; here it is evaluated with new networks, as every set.
Ours:   docs/methods.md.
Run:    fyi-bench distill --method ftd --dataset cifar10 --ipc 10 --fyi
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from distill.contracts import Context, Stored, Tensors
from distill.experts import ExpertConfig
from distill.gsam import GSAM
from distill.methods import METHODS
from distill.methods.mtt import MTT, MTTConfig


@dataclass(frozen=True)
class FTDConfig(MTTConfig):
    gsam_rho: float
    gsam_alpha: float
    gsam_adaptive: bool
    ema_decay: float

    @property
    def expert_config(self) -> ExpertConfig:
        """MTT's experts, with GSAM."""
        gsam = GSAM(self.gsam_rho, self.gsam_alpha, self.gsam_adaptive)
        return replace(super().expert_config, gsam=gsam)


@METHODS.register("ftd")
class FTD(MTT):
    """Flat Trajectory Distillation."""

    numerics = 1
    Config = FTDConfig
    config: FTDConfig
    averages = True

    def initial_images(self) -> torch.Tensor:
        images = super().initial_images()
        self.average = images.detach().clone().to(self.problem.device)
        return images

    def advance(self, ctx: Context) -> bool:
        update_average(self.average, ctx.images.detach(), self.config.ema_decay)
        return False

    def state(self) -> dict[str, torch.Tensor]:
        return {"average": self.average}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.average.copy_(state["average"])

    def stored(self, images: torch.Tensor, extras: Tensors) -> Stored:
        return super().stored(self.average, extras)


def update_average(average: torch.Tensor, images: torch.Tensor, decay: float) -> None:
    """average <- decay · average + (1 - decay) · images, in place."""
    average.mul_(decay).add_(images, alpha=1 - decay)
