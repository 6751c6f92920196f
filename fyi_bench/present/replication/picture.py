"""The picture of condensed sets at the top of the README."""

from __future__ import annotations

import torch

from distill.image_set import ImageSet
from fyi_bench.errors import StoreError
from fyi_bench.present.images import mosaic, png_of
from fyi_bench.present.tables.groups import PAPER
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.store.excerpt import runs_of_protocol
from fyi_bench.store.store import Store

SHOWN = "cifar10", 1, "dsa"  # data set, images a class and method of the picture
ENLARGED, BETWEEN = 3, 6  # pixels a pixel of an image, pixels between the two rows


def picture(store: Store) -> bytes:
    """PNG of the condensed sets of the first seed, without FYI above and with it below."""
    dataset, ipc, method = SHOWN
    rows = []
    for flip in ("none", "fyi"):
        wanted = {"dataset": dataset, "ipc": ipc, "method": method, "flip": flip}
        of_paper = runs_of_protocol(store, PAPER)
        runs = [r for r in store.ls() if r.kind == "distill" and r.state == "done" and r.digest in of_paper]
        runs = [run for run in runs if wanted.items() <= run.inputs.items()]
        if not runs:
            raise StoreError(f"{store.root} has no set of {method}, flip {flip}, on {dataset}.\nMerge one into it.")
        first = min(runs, key=lambda run: (run.inputs["seed"], run.digest))
        image_set = ImageSet.load(store.artefact("distill", first.digest, SET_FILE))
        tiles = mosaic(image_set, image_set.classes, 1, len(image_set.classes))
        rows.append(tiles.repeat_interleave(ENLARGED, 0).repeat_interleave(ENLARGED, 1))
    gap = torch.zeros(BETWEEN, *rows[0].shape[1:], dtype=torch.uint8)
    return png_of(torch.cat([rows[0], gap, rows[1]]))
