"""Epitomes: images made of a few tokens shared by all, mixed by sparse codes and rendered patch by patch (SPEED).

Wei et al., "Sparse Parameterization for Epitomic Dataset Distillation", NeurIPS 2023. A row is an image's codes
[heads, positions, tokens]; tokens are [tokens, dim]. Starting from x = 0 [positions, dim], each block adds the mixed
tokens and then a perceptron of x, with a layer norm after either; every block reads the same codes and tokens. A
linear layer turns the vector of a position into a patch. Checked against the authors' decoder (parity tests).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.decoders import DECODERS, Decoder

_EPS = 1e-6
_SHORT = 2**16  # codes of an image and head that 16 bits can number


@DECODERS.register("epitomes")
class Epitomes(Decoder):
    """Tokens and the layers that render their mixtures; options: patch (pixels a side), top_k (codes kept a head)."""

    needs = ("tokens", "patch.weight", "patch.bias")

    def decode(self, rows: Tensor) -> Tensor:
        tokens, heads = self.tensors["tokens"], rows.shape[1]
        mixed = rows @ tokens.unflatten(1, (heads, -1)).transpose(0, 1)  # [n, heads, positions, dim / heads]
        mixed = mixed.transpose(1, 2).flatten(2)
        x = torch.zeros_like(mixed)
        for block in range(self.blocks):
            x = self._norm(x + self._linear(mixed, f"{block}.mix"), f"{block}.norm1")
            inner = F.gelu(self._linear(x, f"{block}.mlp1"))
            x = self._norm(x + self._linear(inner, f"{block}.mlp2"), f"{block}.norm2")
        return self._assembled(self._linear(x, "patch")).unsqueeze(1)

    def pack(self, rows: Tensor) -> dict[str, Tensor]:
        """The codes that are kept: their values, and their places in 16 bits where those are enough."""
        flat = rows.flatten(2)
        places = flat.abs().topk(min(self.options["top_k"], flat.shape[2]), dim=2).indices.sort(dim=2).values
        narrow = torch.uint16 if flat.shape[2] <= _SHORT else torch.int32
        return {"codes": flat.gather(2, places), "places": places.to(narrow)}

    def unpack(self, packed: Mapping[str, Tensor]) -> Tensor:
        _, height, width = self.shape
        positions, tokens = height * width // self.options["patch"] ** 2, len(self.tensors["tokens"])
        values = packed["codes"]
        flat = torch.zeros(*values.shape[:2], positions * tokens, dtype=values.dtype)
        return flat.scatter_(2, packed["places"].to(torch.int64), values).unflatten(2, (positions, tokens))

    @property
    def blocks(self) -> int:
        """How often codes and tokens are read."""
        return sum(name.endswith(".mix.weight") for name in self.tensors)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"], _EPS)

    def _assembled(self, patches: Tensor) -> Tensor:
        """[n, positions, patch² · channels] -> [n, ch, H, W]; inside a patch: row, column, channel."""
        (channels, height, width), side = self.shape, self.options["patch"]
        grid = patches.unflatten(2, (side, side, channels)).unflatten(1, (height // side, width // side))
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)


def sparse(codes: Tensor, top_k: int) -> Tensor:
    """Codes [n, heads, positions, tokens] with the `top_k` largest of an image and head kept, the others 0."""
    flat = codes.flatten(2)
    places = flat.abs().topk(min(top_k, flat.shape[2]), dim=2).indices
    return torch.zeros_like(flat).scatter_(2, places, flat.gather(2, places)).view_as(codes)


def parameter_shapes(dim: int, blocks: int, numbers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the layers, in the order of the authors' module; `numbers` in a patch."""
    found: dict[str, tuple[int, ...]] = {}
    for block in range(blocks):
        for name in ("norm1", "mix", "norm2", "mlp1", "mlp2"):
            found[f"{block}.{name}.weight"] = (dim,) if "norm" in name else (dim, dim)
            found[f"{block}.{name}.bias"] = (dim,)
    return {**found, "patch.weight": (numbers, dim), "patch.bias": (numbers,)}
