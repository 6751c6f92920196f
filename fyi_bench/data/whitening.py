"""ZCA spaces of real data sets: named without work, fitted when images must be converted.

`python -m fyi_bench.data.whitening cifar10 [DATA_ROOT]` fits one by hand, for a set that came from another machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from distill.spaces import NormalizedSpace, Space
from distill.zca import RelativeZCASpace, ZCASpace, fit
from fyi_bench.data.load import load_dataset
from fyi_bench.data.real import RealDataset
from fyi_bench.errors import DataError, FyiBenchError


def zca_space(
    data: RealDataset, kind: type[ZCASpace] = ZCASpace, statistics: NormalizedSpace | None = None
) -> ZCASpace:
    """The ZCA space of a data set's train images; nothing is computed yet.

    statistics: of the channels, for the kinds that whiten normalised images (default: the data set's).
    """
    facts = data.name, data.train_digest, data.train.shape
    if not issubclass(kind, RelativeZCASpace) or not kind.of_normalized:
        return kind(*facts)
    found = statistics or data.space
    return kind(*facts, mean=found.mean, std=found.std)


def ready(space: Space, data: Callable[[str], RealDataset]) -> Space:
    """The space, with its matrix fitted if it is a ZCA space without one; other spaces as they are.

    data(name) gives a real data set, of which only the train images are read. Raises DataError where that data set is
    another one than the space was made from.
    """
    if not isinstance(space, ZCASpace) or _usable(space):
        return space
    real = data(space.dataset)
    if real.train_digest != space.data:
        raise DataError(
            f"The set is whitened with train images of {space.dataset} that are not the ones in {real.where}"
            f" ({real.note or 'complete'}).\nName the folder of the right ones with --data-root."
        )
    return fit(space, real.train)


def _usable(space: ZCASpace) -> bool:
    """Whether the matrix is at hand and whole; a damaged file is left to `fit`, which replaces it."""
    try:
        space.whitening()
    except DataError:
        return False
    return True


def _main(name: str, root: str | None = None) -> None:
    data = load_dataset(name, root, test=False)
    space = zca_space(data)
    ready(space, lambda _: data)
    print(f"ZCA of {data.name} ({len(data.train):,} train images): {space.path}")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit("usage: python -m fyi_bench.data.whitening DATASET [DATA_ROOT]")
    try:
        _main(*sys.argv[1:])
    except FyiBenchError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
