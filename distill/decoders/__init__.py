"""Stored forms: what a set keeps instead of images, and the decoder that turns it into images at use.

A set's `images` are then its *rows*, one with a label each, in whatever form the decoder reads; what belongs to all
rows stands in the decoder. Tiles (decode.py) have no tensors of their own and are not among them. A plug-in brings its
decoder by an entry point of the group `fyi_bench.decoders`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fyi_bench.errors import DataError
from fyi_bench.registry import Registry

# raised whenever the same rows would give other images; a decoder of a plug-in states its own
NUMERICS = 1


@dataclass(frozen=True)
class Decoder:
    """What belongs to all rows of a set, and how a row becomes images.

    shape: (channels, height, width) of an image; tensors: learned with the rows; options: whole numbers.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # names of its tensors that must be there

    shape: tuple[int, int, int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def variants(self) -> int:
        """Images that a row can become; where there are several, one is drawn whenever the row is used."""
        return 1

    def decode(self, rows: Tensor) -> Tensor:
        """Rows [n, …] -> images [n, variants, ch, H, W]; differentiable in the rows and in `tensors`."""
        raise NotImplementedError(self.name)

    def pack(self, rows: Tensor) -> dict[str, Tensor]:
        """The rows as a file holds them, which is what `bytes` counts; `unpack` is the way back."""
        return {"images": rows}

    def unpack(self, packed: Mapping[str, Tensor]) -> Tensor:
        """The rows from what `pack` gave."""
        return packed["images"]

    def moved(self, change: Callable[[Tensor], Tensor]) -> Decoder:
        """The decoder with each of its tensors changed (moved to a device, given another type)."""
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()})

    def describe(self) -> dict[str, Any]:
        """JSON-able form of all but the tensors; `rebuild` is its inverse."""
        return {"name": self.name, "shape": list(self.shape), "options": dict(self.options)}


DECODERS: Registry[type[Decoder]] = Registry(
    "decoder", package="distill.decoders", group="fyi_bench.decoders", base=Decoder, numerics=NUMERICS, by_file=True
)


def rebuild(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Decoder:
    """The decoder that a file describes. Raises UnknownNameError for its name, DataError where tensors are missing."""
    decoder = DECODERS.get(described["name"])(tuple(described["shape"]), dict(tensors), dict(described["options"]))
    missing = sorted(set(decoder.needs) - set(tensors))
    if missing:
        raise DataError(f"The decoder '{decoder.name}' lacks its tensor '{missing[0]}'.\nCopy or make the file again.")
    return decoder


@torch.no_grad()
def images_of(decoder: Decoder, rows: Tensor, at_once: int = 256) -> Tensor:
    """All images of the rows, [n · variants, ch, H, W], those of a row one after the other."""
    return torch.cat([decoder.decode(part).flatten(0, 1) for part in rows.split(at_once)])
