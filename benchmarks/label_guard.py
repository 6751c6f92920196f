"""How often right labels are doubted, and permuted ones found: `python -m benchmarks.label_guard cifar10 300`."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from distill.image_set import ImageSet
from fyi_bench.data import load_dataset
from fyi_bench.formats.guard import Guard
from fyi_bench.rng import stream

IPCS = (1, 2, 5, 10, 50)


def main(name: str, draws: int) -> None:
    """Print a row of Markdown for each number of images a class."""
    data = load_dataset(name)
    guard = Guard.of(data.train)
    rows = [data.test.indices_of(label) for label in range(data.num_classes)]
    for ipc in IPCS:
        stopped = found = 0
        for draw in range(draws):
            generator = stream(0, "label-guard", ipc, draw)
            index = torch.cat([r[torch.randint(len(r), (ipc,), generator=generator)] for r in rows])
            right = data.test.select(index)
            order = torch.randperm(data.num_classes, generator=generator)
            stopped += guard.judge(right).doubtful
            found += guard.judge(permuted(right, order)).doubtful
        print(f"| {name} | {ipc} | {stopped} of {draws} | {found / draws:.0%} |", flush=True)


def permuted(image_set: ImageSet, order: torch.Tensor) -> ImageSet:
    """Class k under the number order[k]."""
    return replace(image_set, labels=order[image_set.labels])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
