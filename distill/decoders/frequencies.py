"""Frequencies: few coefficients of the cosine transform of each image, at places that vary most in its class (FreD).

Shin, Shin, Moon, "Frequency Domain-based Dataset Distillation", NeurIPS 2023. A row holds the coefficients of each
channel [channels, H, W], zero where none is kept. The transform is the one without normalisation of their code:
X_k = 2 sum_n x_n cos(pi (2n + 1) k / 2N) along both sides, and its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from distill.decoders import DECODERS, Decoder


@DECODERS.register("frequencies")
class Frequencies(Decoder):
    """Coefficients at `kept` places a channel, the same ones in each channel of an image."""

    def decode(self, rows: Tensor) -> Tensor:
        tall, wide = (_inverse(side, rows) for side in self.shape[1:])
        return (tall @ rows @ wide.T).unsqueeze(1)

    def pack(self, rows: Tensor) -> dict[str, Tensor]:
        """The coefficients that are kept; their places, in 16 bits, once for all rows that share them."""
        places = rows.abs().sum(1).flatten(1).topk(self.options["kept"], dim=1).indices.sort(dim=1).values
        masks, which = places.unique(dim=0, return_inverse=True)
        index = places.unsqueeze(1).expand(-1, rows.shape[1], -1)
        return {
            "codes": rows.flatten(2).gather(2, index),
            "masks": masks.to(torch.uint16 if math.prod(self.shape[1:]) <= 2**16 else torch.int32),
            "which": which.to(torch.int32),
        }

    def unpack(self, packed: Mapping[str, Tensor]) -> Tensor:
        values = packed["codes"]
        places = packed["masks"].to(torch.int64)[packed["which"].long()]
        flat = torch.zeros(len(values), self.shape[0], math.prod(self.shape[1:]), dtype=values.dtype)
        flat.scatter_(2, places.unsqueeze(1).expand(-1, self.shape[0], -1), values)
        return flat.unflatten(2, self.shape[1:])


def coefficients(images: Tensor) -> Tensor:
    """The transform of images [n, ch, H, W]; `Frequencies.decode` is its inverse."""
    tall, wide = (2 * _cosines(side, images) for side in images.shape[2:])
    return tall.T @ images @ wide


def _cosines(side: int, like: Tensor) -> Tensor:
    """[position, frequency]: cos(pi (2n + 1) k / 2N)."""
    n, k = torch.arange(side, dtype=torch.float64).unsqueeze(1), torch.arange(side, dtype=torch.float64)
    return torch.cos(math.pi * (2 * n + 1) * k / (2 * side)).to(like)


def _inverse(side: int, like: Tensor) -> Tensor:
    scale = torch.full((side,), 1 / side, dtype=torch.float64)
    scale[0] /= 2
    return _cosines(side, like) * scale.to(like)
