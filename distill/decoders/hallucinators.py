"""Hallucinators: small networks shared by all classes, each of which turns a base into another image (HaBa).

Liu et al., "Dataset Distillation via Factorization", NeurIPS 2022. A row is a base [channels, H, W]. A hallucinator is
a 3x3 convolution without padding, a scale and a shift for every place, and a 3x3 transposed convolution back. Each use
of a base draws one of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.decoders import DECODERS, Decoder


@DECODERS.register("hallucinators")
class Hallucinators(Decoder):
    """J hallucinators: forth.weight [J, ch, channels, 3, 3], scale and shift [J, ch, H - 2, W - 2], back.weight … ."""

    needs = ("forth.weight", "forth.bias", "scale", "shift", "back.weight", "back.bias")

    @property
    def variants(self) -> int:
        return len(self.tensors["scale"])

    def decode(self, rows: Tensor) -> Tensor:
        return torch.stack([self.images(rows, number) for number in range(self.variants)], dim=1)

    def images(self, rows: Tensor, number: int) -> Tensor:
        """What one hallucinator makes of the bases, [n, ch, H, W]."""
        into, into_bias, scale, shift, out, out_bias = (self.tensors[name][number] for name in self.needs)
        return F.conv_transpose2d(F.conv2d(rows, into, into_bias) * scale + shift, out, out_bias)
