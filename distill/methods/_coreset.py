"""What the coresets that look at features have in common (files with a leading underscore are no methods)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distill import coresets
from distill.initial import packed
from distill.method import MethodConfig
from distill.methods.random import Coreset
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick


@dataclass(frozen=True)
class CoresetConfig(MethodConfig):
    features: str
    feature_steps: int
    batch_train: int
    lr_net: float
    momentum_net: float
    wd_net: float


class FeatureCoreset(Coreset):
    """Real images of each class chosen by their features.

    features: 'trained' (a network trained on the real images for `feature_steps` mini-batches; the default, as the
    baselines of DC, ICLR 2021, Sec. 4.1, were made), 'random' (a fresh network) or 'pixels'.
    """

    Config = CoresetConfig
    config: CoresetConfig

    def initial_images(self) -> torch.Tensor:
        if self.config.init != self.name:
            raise UsageError(
                f"The coreset '{self.name}' is its own first choice of images; init={self.config.init} has no meaning."
            )
        return packed(self.problem, self.rows(), factor=1)

    def rows(self) -> torch.Tensor:
        """int64 [C, ipc]: the chosen rows of the real images."""
        raise NotImplementedError(self.name)

    def embedding(self) -> coresets.Embedding:
        """The features that `features` asks for."""
        c = self.config
        training = coresets.FeatureTraining(c.model, c.feature_steps, c.batch_train, c.lr_net, c.momentum_net, c.wd_net)
        return pick("features of a coreset", c.features, coresets.FEATURES)(self.problem, training)
