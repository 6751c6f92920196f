"""Differentiable (siamese) augmentation: what is drawn, how a call is made of operations, how it is applied.

Draws and operations are separate things: a `Draw` holds every random number of a call, so real and synthetic
images of a class share one (siamese, Zhao and Bilen, ICML 2021), all classes go through one call, and numbers
recorded elsewhere can be fed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from distill.augment_ops import COLUMNS, OPERATIONS, AugmentStrength, Size
from distill.batches import Sizes, equal, for_each
from distill.captured import upload
from fyi_bench.errors import UsageError
from fyi_bench.registry import pick

# raised whenever the same draws would give other images, or the same generator other draws
NUMERICS = 1

STRATEGY = "color_crop_cutout_flip_scale_rotate"
_IDENTITY = ("", "none")
_LONG_RUN = 8  # images one after another with the same operation that are worth a call of their own

Stages = tuple[tuple[str, ...], ...]


def one_of_all(listed: tuple[str, ...]) -> Stages:
    """One operation of the listed, for the whole call (DSA, DM, MTT, FTD, CAFE, DataDAM)."""
    return (listed,)


def flip_then_one(listed: tuple[str, ...]) -> Stages:
    """A mirror with probability 1/2 first, where listed, then one operation of the rest (FYI's published code)."""
    return _present(listed, "flip"), _without(listed, "flip")


def flip_color_one_cutout(listed: tuple[str, ...]) -> Stages:
    """Flip, colour, one operation of the rest, cutout, where listed (IDC, Kim et al., ICML 2022)."""
    rest = _without(listed, "flip", "color", "cutout")
    return _present(listed, "flip"), _present(listed, "color"), rest, _present(listed, "cutout")


def one_for_each_image(listed: tuple[str, ...]) -> Stages:
    """One operation of the listed for every image, DC's own ones (DC's evaluation, Zhao et al., ICLR 2021)."""
    return (tuple(f"dc-{name}" for name in listed),)


def each_in_turn(listed: tuple[str, ...]) -> Stages:
    """All of the listed, one after the other, each with numbers of its own for an image (torchvision's Compose)."""
    return tuple((name,) for name in listed)


def one_as_frepo(listed: tuple[str, ...]) -> Stages:
    """One operation of the listed, for the whole call, of FRePo's strengths (its evaluation, NeurIPS 2022)."""
    own = {"color": "frepo-color", "crop": "frepo-crop", "translate": "crop", "cutout": "frepo-cutout"}
    return (tuple(own.get(name, name) for name in listed),)


# name -> function(listed operations) giving the stages of a call, each the operations one is chosen from
DISPATCHERS: dict[str, Callable[[tuple[str, ...]], Stages]] = {
    "dsa": one_of_all, "dsa-flip-first": flip_then_one, "idc": flip_color_one_cutout, "dc": one_for_each_image,
    "all": each_in_turn, "frepo": one_as_frepo,
}  # fmt: skip
_FOR_EACH_IMAGE = "dc"  # the dispatcher that makes every image a group of its own


def _present(listed: tuple[str, ...], name: str) -> tuple[str, ...]:
    return (name,) if name in listed else ()


def _without(listed: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(name for name in listed if name not in names)


@dataclass(frozen=True)
class Draw:
    """Every random number of one augmentation call on groups of images (classes, or networks).

    stages: for each stage the operations one is chosen from.
    codes: int64 [stages, groups], the chosen one. values: float64 [stages, groups, rows, 3], its draws;
    rows is 1 (siamese: a group's images share them, however many there are) or the images of a group.
    """

    stages: Stages
    codes: Tensor
    values: Tensor

    @property
    def groups(self) -> int:
        """Number of groups with draws of their own."""
        return self.codes.shape[1]

    @property
    def siamese(self) -> bool:
        """Whether the images of a group share their draws."""
        return self.values.shape[2] == 1

    @property
    def names(self) -> list[tuple[str, ...]]:
        """For each stage the chosen operation of each group (copies from the device if it lies on one)."""
        return [tuple(names[k] for k in codes) for names, codes in zip(self.stages, self.codes.tolist(), strict=True)]

    @staticmethod
    def from_values(*steps: tuple[str, Any]) -> Draw:
        """Draw of one group from known numbers: ("crop", (3, -3)) for each stage, in order.

        The numbers are [k] for all images of the call or [N, k], one row an image; their meaning is that of
        `augment_ops`. Raises UnknownNameError for an operation, UsageError for a wrong count of numbers.
        """
        tables = [_table(name, numbers) for name, numbers in steps]
        rows = max((len(t) for t in tables), default=1)
        values = torch.stack([t.expand(rows, -1) for t in tables]) if tables else torch.zeros(0, 1, COLUMNS)
        codes = torch.zeros(len(steps), 1, dtype=torch.int64)
        return Draw(tuple((name,) for name, _ in steps), codes, values.unsqueeze(1))

    def select(self, groups: slice | Sequence[int] | Tensor) -> Draw:
        """The draws of some of the groups, for images of these only."""
        return Draw(self.stages, self.codes[:, groups], self.values[:, groups])

    def repeat(self, n: int | Sizes) -> Draw:
        """A siamese draw with a row for each image: n a group, or as many as are listed; the same is drawn."""
        sizes = [n] if isinstance(n, int) else n
        if equal(sizes):
            return Draw(self.stages, self.codes, self.values.expand(-1, -1, sizes[0], -1))
        return Draw(self.stages, for_each(self.codes, sizes, 1), for_each(self.values, sizes, 1))

    def to(self, device: torch.device | str) -> Draw:
        """These draws on a device; applying them there needs no host, so a CUDA graph can hold the call."""
        device = torch.device(device)
        return Draw(self.stages, upload(self.codes, device), upload(self.values, device))


def _table(name: str, numbers: Any) -> Tensor:
    """float64 [rows, COLUMNS] of one operation's draws."""
    columns = OPERATIONS.get(name).columns
    table = torch.atleast_2d(torch.as_tensor(numbers, dtype=torch.float64))
    if table.ndim != 2 or table.shape[1] != columns:
        raise UsageError(f"The operation '{name}' takes {columns} numbers per draw, not {list(table.shape)}.")
    return torch.nn.functional.pad(table, (0, COLUMNS - columns))


class Augmentation:
    """An augmentation strategy: which operations, how they are combined, how strong.

    strategy: operation names joined by '_'; '' or 'none' changes nothing, alone or among them.
    dispatcher: 'dsa', 'dsa-flip-first', 'idc', 'dc', 'frepo' or 'all', see `DISPATCHERS`.
    Raises UnknownNameError for unknown names and UsageError for a name listed twice.
    """

    def __init__(
        self, strategy: str | None = STRATEGY, dispatcher: str = "dsa", strength: AugmentStrength | None = None
    ):
        text = (strategy or "").lower()
        self.operations = tuple(word for word in text.split("_") if word not in _IDENTITY)
        for name in self.operations:
            if self.operations.count(name) > 1:
                raise UsageError(f"The augmentation strategy '{strategy}' lists '{name}' twice.")
        self.dispatcher = dispatcher
        self.strength = strength or AugmentStrength()
        stages = pick("augmentation dispatcher", dispatcher, DISPATCHERS)(self.operations)
        self.stages: Stages = tuple(stage for stage in stages if stage)
        for name in (name for stage in self.stages for name in stage):
            OPERATIONS.get(name)

    @property
    def identity(self) -> bool:
        """Whether nothing is ever changed."""
        return not self.stages

    def describe(self) -> dict[str, Any]:
        """JSON-able description for digests: equal descriptions give equal numbers."""
        return {
            "strategy": "_".join(self.operations) or "none",
            "dispatcher": self.dispatcher,
            "strength": asdict(self.strength),
            "numerics": NUMERICS,
        }

    def draw(
        self,
        generator: torch.Generator | Sequence[torch.Generator],
        n: int,
        size: int | Size,
        siamese: bool = False,
        groups: int = 1,
    ) -> Draw:
        """Draw for `groups` groups of `n` images of (height, width) `size`, laid out group after group.

        Each group gets its own operations. Siamese: one row of numbers a group, which does not depend on n;
        otherwise one row an image. Give one CPU generator, or one for each group. From a generator come, group
        by group and stage by stage, one number for the choice of the operation and three for each row: 64-bit
        uniform numbers, always all of them, so that no draw depends on what was drawn before it. The dispatcher 'dc'
        draws for n groups of one image in place of a group of n.
        """
        rows, parts = (1, n) if self.dispatcher == _FOR_EACH_IMAGE and not siamese else (1 if siamese else n, 1)
        shape = (len(self.stages), 1 + COLUMNS * rows)
        if isinstance(generator, torch.Generator):
            u = torch.rand((groups * parts, *shape), generator=generator, dtype=torch.float64)
        elif len(generator) == groups:
            u = torch.cat([torch.rand((parts, *shape), generator=g, dtype=torch.float64) for g in generator])
        else:
            raise ValueError(f"{len(generator)} generators for {groups} groups")
        counts = torch.tensor([len(stage) for stage in self.stages], dtype=torch.float64)
        codes = torch.minimum((u[:, :, 0] * counts).floor(), counts - 1).long().T.contiguous()
        values = u[:, :, 1:].unflatten(2, (rows, COLUMNS)).transpose(0, 1).contiguous()
        self._finish(codes, values, (size, size) if isinstance(size, int) else size)
        return Draw(self.stages, codes, values)

    def draw_classes(
        self, generator: torch.Generator | Sequence[torch.Generator], classes: int, size: int | Size
    ) -> Draw:
        """One siamese draw for each of `classes` classes, from one generator or one for each class.

        Apply it to class-major real images [C·n, …] and, again, to class-major synthetic ones [C·m, …].
        """
        return self.draw(generator, 1, size, siamese=True, groups=classes)

    def draw_ahead(
        self, streams: Sequence[torch.Generator], counts: Sequence[int], size: int | Size, device: torch.device
    ) -> list[Draw]:
        """The draws of several steps, on the device: of step k, what `draw(streams[k], counts[k], size)` gives.

        Equal counts are drawn and uploaded together, which costs the host a fraction of the time.
        """
        places: dict[int, list[int]] = {}
        for place, count in enumerate(counts):
            places.setdefault(count, []).append(place)
        found: dict[int, Draw] = {}
        for count, where in places.items():
            together = self.draw([streams[k] for k in where], count, size, groups=len(where)).to(device)
            step = together.groups // len(where)
            found |= {place: together.select(slice(k * step, (k + 1) * step)) for k, place in enumerate(where)}
        return [found[place] for place in range(len(counts))]

    def apply(self, x: Tensor, draw: Draw, counts: Sequence[int] | None = None) -> Tensor:
        """x [N, ch, H, W], group after group, augmented by a draw; same shape, type and device.

        counts: images of each group of a siamese draw, where they differ. Differentiable twice.
        Raises UsageError when the draw is for another number of images.
        """
        for names, codes, values in zip(draw.stages, draw.codes, draw.values, strict=True):
            codes, values = _per_image(x, codes, values, counts)
            stage = _chosen_on_host if codes.device.type == "cpu" else _chosen_on_device
            x = stage(x, names, codes, values, self.strength)
        return x

    def _finish(self, codes: Tensor, values: Tensor, size: Size) -> None:
        """Turn uniform numbers in place into the draws of the chosen operations."""
        for stage, names in enumerate(self.stages):
            for code in codes[stage].unique().tolist():
                chosen = codes[stage] == code
                values[stage, chosen] = OPERATIONS.get(names[code]).finish(values[stage, chosen], size, self.strength)


def _per_image(x: Tensor, codes: Tensor, values: Tensor, counts: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """One stage's codes [N] and draws [N, 3] for each image; [1] and [1, 3] where all images share them."""
    groups, rows, _ = values.shape
    if counts is not None:
        if rows != 1 or len(counts) != groups or sum(counts) != len(x):
            raise UsageError(f"The counts {list(counts)} do not fit {len(x)} images and a draw for {groups} groups.")
        owner = upload(torch.repeat_interleave(torch.tensor(counts)), codes.device)
        return codes[owner], values[owner, 0]
    if len(x) % groups or rows not in (1, len(x) // groups):
        raise UsageError(f"{len(x)} images for a draw of {groups} groups with {rows} rows each.")
    if groups * rows == 1:
        return codes, values[:, 0]
    n = len(x) // groups
    return codes[:, None].expand(groups, n).flatten(), values.expand(groups, n, -1).flatten(0, 1)


def _chosen_on_host(
    x: Tensor, names: tuple[str, ...], codes: Tensor, values: Tensor, strength: AugmentStrength
) -> Tensor:
    """Each operation on the images that chose it; the codes are known here, so no device is waited for."""
    runs, sizes = codes.unique_consecutive(return_counts=True)
    if len(runs) == 1:
        return OPERATIONS.get(names[int(runs)]).apply(x, upload(values, x.device), strength)
    # on a CPU a few calls more cost less than moving every image twice
    in_order = x.device.type == "cpu" and len(codes) >= _LONG_RUN * len(runs)
    if not in_order:
        order = codes.argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        runs, sizes = codes[order].unique_consecutive(return_counts=True)
        x, values = x.index_select(0, upload(order, x.device)), values[order]
    pieces, draws = x.split(sizes.tolist()), upload(values, x.device).split(sizes.tolist())
    changed = torch.cat(
        [
            OPERATIONS.get(names[code]).apply(piece, row, strength)
            for code, piece, row in zip(runs.tolist(), pieces, draws, strict=True)
        ]
    )
    return changed if in_order else changed.index_select(0, upload(back, x.device))


def _chosen_on_device(
    x: Tensor, names: tuple[str, ...], codes: Tensor, values: Tensor, strength: AugmentStrength
) -> Tensor:
    """Every operation on every image, the chosen one kept: fixed shapes, and nothing for the host to know."""
    if len(names) == 1:
        return OPERATIONS.get(names[0]).apply(x, values, strength)
    result = x
    for code, name in enumerate(names):
        chosen = (codes == code).unsqueeze(1)
        # another operation's numbers could be out of this one's range and turn discarded gradients into NaN
        changed = OPERATIONS.get(name).apply(x, values.where(chosen, 0), strength)
        result = torch.where(chosen.view(-1, 1, 1, 1), changed, result)
    return result
