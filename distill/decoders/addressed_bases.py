"""Addressed bases: small images shared by all classes, and for each image the address that mixes them (RTP).

Deng, Russakovsky, "Remember the Past: Distilling Datasets into Addressable Memories for Neural Networks", NeurIPS 2022.
A row is an address [bases]; image = the bases' sum weighted by it, enlarged bilinearly to the full size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.decode import interpolation
from distill.decoders import DECODERS, Decoder


@DECODERS.register("addressed-bases")
class AddressedBases(Decoder):
    """Bases [K, ch, h, w] that addresses [K] mix."""

    needs = ("bases",)

    def decode(self, rows: Tensor) -> Tensor:
        bases = self.tensors["bases"]
        small = torch.einsum("nk,kchw->nchw", rows, bases)
        # products with interpolation matrices, as in decode.py: a derivative that a GPU repeats
        like = bases.dtype, bases.device
        tall, wide = (interpolation(*sides, *like) for sides in zip(bases.shape[2:], self.shape[1:], strict=True))
        return (tall @ small @ wide.T).unsqueeze(1)
