"""Keyed randomness: every random draw of the project is a function of (seed, what it is for, step, …).

There is no global generator and no clock, so there is no hidden state to save: a resumed run
repeats the numbers of an uncut one, and the number of workers cannot change a result.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch and numpy stay out of `import fyi_bench`
    import numpy
    import torch

Key = int | str


def key_seed(seed: int, *keys: Key) -> int:
    """63-bit seed derived from `seed` and the keys; equal arguments give equal seeds on any machine."""
    text = "\x1f".join(f"{type(k).__name__}:{k}" for k in (int(seed), *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *keys: Key) -> torch.Generator:
    """CPU torch generator for these keys. Draw on the CPU and move, so that devices agree."""
    import torch

    return torch.Generator().manual_seed(key_seed(seed, *keys))


def numpy_stream(seed: int, *keys: Key) -> numpy.random.Generator:
    """numpy generator for these keys (independent of the torch one)."""
    import numpy

    return numpy.random.Generator(numpy.random.PCG64(key_seed(seed, *keys)))
