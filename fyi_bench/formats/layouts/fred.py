"""FreD: mask.pt beside images_<it|best>.pt or res_*.pt, whose images are kept as the coefficients that the mask leaves.

The files hold decoded images; the mask [N, ch, H, W] says which coefficients of their cosine transform are not zero.
"""

from __future__ import annotations

import torch

from distill.decoders.frequencies import Frequencies, coefficients
from fyi_bench.formats.arrays import to_tensor
from fyi_bench.formats.base import FORMATS, Format, Options, Raw
from fyi_bench.formats.input_files import InputFiles
from fyi_bench.formats.layouts.dc import DC
from fyi_bench.formats.layouts.mtt import MTT, find_pair
from fyi_bench.formats.pixels import prepare

_MASK = "mask.pt"
_LEFT = 1e-3  # share of the coefficients' size that may lie outside the mask: rounding


@FORMATS.register("fred")
class FreD(Format):
    """FreD: images_*.pt or res_*.pt, and mask.pt beside them"""

    rank, family = 14, "mtt"

    def looks(self, files: InputFiles) -> str:
        images = (files.kind == "torch" and files.name != _MASK) or (
            find_pair(files) if files.kind == "folder" else None
        )
        return f"the mask of frequencies {_MASK}" if files.has(_MASK) and (images or DC().looks(files)) else ""

    def read(self, files: InputFiles, options: Options) -> Raw:
        """The set of the other layout, as coefficients where the mask is of its images."""
        files.need(files.has(_MASK), f"beside {_MASK}, which says what frequencies are kept")
        inner = MTT() if find_pair(files) else DC()
        raw = inner.read(files, options)
        raw.method = "fred"
        images = prepare(raw.images, options.max_bytes).images.float()
        mask = to_tensor(files.content(_MASK), "frequencies that are kept", options.max_bytes)
        if mask.shape != images.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raw.warnings.append(f"{_MASK} is not of these images: they are kept as pixels")
            return raw
        all_of_them, each = coefficients(images), mask[:, 0].flatten(1).sum(1)
        kept, same = int(each[0]), bool((each == each[0]).all()) and bool((mask == mask[:, :1]).all())
        outside = float((all_of_them * (1 - mask)).norm() / all_of_them.norm().clamp_min(1e-30))
        if not same or not kept or outside > _LEFT:
            raw.warnings.append(f"the images have frequencies that {_MASK} does not keep: they are kept as pixels")
            return raw
        channels, height, width = images.shape[1:]
        decoder = Frequencies((channels, height, width), {}, {"kept": kept})
        raw.guesses.append(f"kept as {kept} frequencies a channel, of {height * width}")
        return raw.from_rows(decoder, all_of_them * mask.to(torch.float32))
