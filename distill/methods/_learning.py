"""What methods have in common whose network learns between matching steps (a file with an underscore is no method)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.captured import Captured, upload
from distill.contracts import Context
from distill.method import MethodConfig, RecordedMethod
from distill.optimisers import SGD


@dataclass(frozen=True)
class LearningConfig(MethodConfig):
    """Options of the network's training inside a method."""

    lr_net: float
    momentum_net: float
    wd_net: float
    batch_train: int


class LearningMethod(RecordedMethod):
    """A recorded method whose network learns between matching steps, if it asks for it on the synthetic images."""

    config: LearningConfig
    optimiser: SGD
    _kept: SGD | None = None
    _learn: Captured | None = None

    def begin(self, ctx: Context) -> None:
        self.network = self.fresh_network(ctx.iteration)
        self.optimiser = self._rested()

    def _rested(self) -> SGD:
        """SGD for the fresh network by `lr_net`, `momentum_net`, `wd_net`: one object, at rest again each time."""
        if self._kept is None:
            c = self.config
            self._kept = SGD(self.network.parameters(), lr=c.lr_net, momentum=c.momentum_net, weight_decay=c.wd_net)
        for state in self._kept.state.values():
            if state.get("momentum_buffer") is not None:
                state["momentum_buffer"].zero_()
        return self._kept

    def train_epoch(self, ctx: Context, epoch: int) -> None:
        """One shuffled pass over the synthetic set, expanded by the flip and then augmented."""
        if self._learn is None:
            self._learn = Captured(partial(self._epoch_step, ctx))
        device, size = ctx.labels.device, self.problem.shape[-1]
        order = torch.randperm(len(ctx.labels), generator=ctx.stream("inner order", epoch))
        for number, index in enumerate(upload(order, device).split(self.config.batch_train)):
            shown, generator = len(index) * ctx.flip.multiplier, ctx.stream("inner augment", epoch, number)
            draw = self.augmentation.draw(generator, shown, size, siamese=False).to(device)
            self._learn(index, draw.codes, draw.values, ctx.flip_draw(index.shape, "inner", epoch, number))

    def _epoch_step(self, ctx: Context, index: Tensor, codes: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
        """The network's step on the synthetic images of these indices; returns the loss."""
        x, y = ctx.flip.expand(ctx.images.detach()[index], ctx.labels[index], chosen=chosen)
        self.optimiser.zero_grad(set_to_none=True)
        with self.first_order():
            loss = F.cross_entropy(self.network(self.augmentation.apply(x, self.drawn(codes, values))), y)
        loss.backward()
        self.optimiser.step()
        return loss.detach()
