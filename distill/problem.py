"""What a method is given: the real images of some classes, the space to work in, a seed and a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from distill.captured import upload
from distill.expert_file import Trajectory
from distill.image_set import ImageSet
from distill.spaces import NormalizedSpace, PixelSpace, Space
from fyi_bench import rng
from fyi_bench.errors import UsageError
from fyi_bench.rng import Key


@dataclass(frozen=True)
class Problem:
    """Real images to condense.

    real: train images of (at least) the wanted classes; never test images.
    classes: the classes to condense, original labels; inside they count 0 .. C - 1 in this order.
    ipc: synthetic images per class; space: where the synthetic images live; seed: of every draw.
    data_digest: identifies the real data in provenance and records.
    statistics: channel statistics for methods that work on pixels and normalise inside, see `normalisation`.
    precision: 'fp32', or 'bf16' for branches that need first derivatives only (on CPU and GPU by autocast).
    experts: gives the expert trajectories of these classes, for methods that match them; called when first needed.
    """

    real: ImageSet
    space: Space
    ipc: int
    seed: int = 0
    classes: Sequence[int] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    precision: str = "fp32"
    data_digest: str = ""
    statistics: NormalizedSpace | None = None
    experts: Callable[[], Sequence[Trajectory]] | None = None

    def __post_init__(self) -> None:
        if not self.classes:
            object.__setattr__(self, "classes", tuple(self.real.classes))
        if self.ipc < 1:
            raise UsageError(f"Images per class must be 1 or more, not {self.ipc}.")
        empty = [c for c, rows in zip(self.classes, self.rows, strict=True) if len(rows) == 0]
        if empty:
            raise UsageError(f"The real data has no images of class {empty[0]}.\nName other classes.")
        smallest = min(len(r) for r in self.rows)
        if self.ipc > smallest:
            raise UsageError(
                f"{self.ipc} images per class were asked for, but the smallest class has {smallest} real images.\n"
                f"Take {smallest} or fewer."
            )

    @property
    def num_classes(self) -> int:
        """C: classes condensed together, the size of the head of distillation networks."""
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        return self.real.shape

    @cached_property
    def rows(self) -> list[torch.Tensor]:
        """Indices into `real` of each class, in the order of `classes`."""
        return [self.real.indices_of(c) for c in self.classes]

    @cached_property
    def _padded_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """rows as one [C, most] tensor, and the mask of its real entries."""
        rows = torch.nn.utils.rnn.pad_sequence(self.rows, batch_first=True, padding_value=-1)
        return rows, rows >= 0

    def stream(self, *keys: Key) -> torch.Generator:
        """Keyed generator of this problem's seed."""
        return rng.stream(self.seed, *keys)

    def batch_sizes(self, count: int) -> list[int]:
        """Images of each class in a batch of `count` a class: all of them where a class has fewer."""
        return [min(count, len(rows)) for rows in self.rows]

    def draw_rows(self, count: int, *keys: Key) -> torch.Tensor:
        """int64 [C, k]: images of each class without replacement, k = count or the largest class's size.

        A class with fewer gives all it has (`batch_sizes`), and repeats them in the rest of its row.
        """
        rows, real = self._padded_rows
        sizes = real.sum(1, keepdim=True)
        count = min(count, int(sizes.max()))
        order = torch.rand(rows.shape, generator=self.stream(*keys), dtype=torch.float64)
        picks = order.masked_fill_(~real, -1.0).topk(count, dim=1).indices
        return rows.gather(1, picks.gather(1, torch.arange(count) % sizes))

    def images_at(self, rows: torch.Tensor, space: Space | None = None) -> torch.Tensor:
        """Real images [*rows.shape, ch, H, W] in the working space (or `space`), on the device."""
        images = self._resident[upload(rows.flatten(), self._resident.device)]
        pixels = ImageSet(images, torch.zeros(len(images), dtype=torch.int64), self.real.space, 1)
        return pixels.batch(slice(None), space or self.space, self.dtype).unflatten(0, rows.shape)

    def real_batch(self, count: int, *keys: Key) -> torch.Tensor:
        """Fresh real batch [C, k, ch, H, W] of `draw_rows`; batches are independent (no epochs)."""
        return self.images_at(self.draw_rows(count, *keys))

    def shuffled(self, batch: int, *keys: Key) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One shuffled pass over the real images of the classes: (int64 [b] for `images_at`, int64 [b] in 0 .. C - 1).

        Both lie on the device.
        """
        rows = torch.cat(self.rows)
        labels = torch.repeat_interleave(torch.tensor([len(r) for r in self.rows]))
        order = torch.randperm(len(rows), generator=self.stream(*keys))
        for index in order.split(batch):
            yield upload(rows[index], self.device), upload(labels[index], self.device)

    @cached_property
    def normalisation(self) -> NormalizedSpace:
        """`statistics`, or where none were given the channel mean and std of the real images of the classes."""
        if self.statistics is not None:
            return self.statistics
        count, total = 0, torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        squares = total.clone()
        for rows in torch.cat(self.rows).split(4096):
            pixels = self.images_at(rows, PixelSpace()).double()
            total = total + pixels.sum((0, 2, 3))
            squares = squares + pixels.square().sum((0, 2, 3))
            count += pixels[:, 0].numel()
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1e-6)
        return NormalizedSpace(tuple(mean.tolist()), tuple(std.tolist()))

    @cached_property
    def _resident(self) -> torch.Tensor:
        """The real images where the work is done: uint8 sets are small enough to stay on a GPU."""
        return self.real.images.to(self.device)
