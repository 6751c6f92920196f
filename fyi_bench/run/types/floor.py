"""Run type `floor`: random real images beside a set, as many as it has, or as many as fit into its bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fyi_bench.run.numerics import using
from fyi_bench.run.run_type import RUN_TYPES, SECONDS, SET_FILE, Need, Passes, RunType, Worker, source_note
from fyi_bench.run.teachers import Teachers, teacher_needs, teacher_passes, teaching_of
from fyi_bench.store.run_dir import RunDir
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    import torch

    from distill.image_set import ImageSet
    from fyi_bench.data import RealDataset

# form -> what it is, for people
FORMS = {
    "images": "random real images, as many",
    "uint8": "random real images, as many bytes",
    "jpeg": "random real JPEGs, as many bytes",
}
QUALITY = 75  # of the JPEGs: Pillow's default
LABEL_BYTES = 8  # of an image, as an ImageSet keeps them
_LIKELY_JPEG = 4  # for the estimate of time alone: uint8 bytes to one of a JPEG


def floor_run(
    data: RealDataset, form: str, size: Sequence[int] | int, seed: int, teachers: Teachers | None = None
) -> RunSpec:
    """The spec of one draw. size: images of each class for the form 'images', else bytes in all.

    teachers: who labels the images softly, each once and unaugmented; hard labels without.
    """
    inputs: dict[str, Any] = {
        "dataset": data.name,
        "data": data.train_digest,
        "form": form,
        "size": size if isinstance(size, int) else list(size),
        "seed": seed,
        "numerics": using("robust"),
        **({} if teachers is None else teachers.inputs),
    }
    more = {} if teachers is None else {**teachers.notes, "teacher_models": list(teachers.models)}
    return RunSpec("floor", inputs, {**source_note(data), **more})


def likely_images(data: RealDataset, form: str, size: Sequence[int] | int) -> int:
    """About how many images a draw will have, for the estimate of time."""
    if not isinstance(size, int):
        return sum(size)
    each = data.train.images[0].numel() + LABEL_BYTES
    return min(len(data.train), max(data.num_classes, size * (_LIKELY_JPEG if form == "jpeg" else 1) // each))


@RUN_TYPES.register("floor")
class FloorRun(RunType):
    """Draw random real images."""

    name = "floor"
    metric = SECONDS

    def compute(self, run: RunDir, worker: Worker) -> None:
        """Draw, label, keep, record how many there are and their bytes."""
        from downstream.robust_scores import random_like, taught

        spec = run.spec
        data, size = worker.real(spec, test=False), spec.inputs["size"]
        train = data.train
        if isinstance(size, list):
            drawn = random_like(train, size, spec.inputs["seed"])
            stored = drawn.nbytes
        else:
            # a smaller draw is the beginning of a larger one
            pool = random_like(train, train.counts.tolist(), spec.inputs["seed"])
            share = size // max(1, len(train.classes))
            drawn, stored = (_as_jpeg if spec.inputs["form"] == "jpeg" else _as_bytes)(pool, share)
        teaching = teaching_of(spec, data, worker)
        if teaching is not None:
            logits = [taught(drawn, network, data.space).labels for network in teaching.networks]
            drawn = replace(drawn, labels=sum(logits[1:], logits[0]) / len(logits), label_kind="logits")
        drawn = replace(drawn, class_names=data.class_names, provenance={"method": "random", "flip": "none"})
        drawn.save(run.path(SET_FILE))
        labels = drawn.labels.nbytes
        size = stored - LABEL_BYTES * len(drawn) + labels
        run.finish({"set_bytes": size, "label_bytes": labels, "images": len(drawn)})

    def needs(self, spec: RunSpec) -> list[Need]:
        """The networks that label."""
        return teacher_needs(spec)

    def passes(self, spec: RunSpec, data: RealDataset) -> list[Passes]:
        """Passes of the teachers over the images."""
        return teacher_passes(spec, data, likely_images(data, spec.inputs["form"], spec.inputs["size"]))


def _as_bytes(pool: ImageSet, share: int) -> tuple[ImageSet, int]:
    """(images, bytes): of each class as many as fit into its share, at least one."""
    import torch

    most = max(1, share // (pool.images[0].nbytes + LABEL_BYTES))
    kept = pool.select(torch.cat([pool.indices_of(label)[:most] for label in pool.classes]))
    return kept, kept.nbytes


def _as_jpeg(pool: ImageSet, share: int) -> tuple[ImageSet, int]:
    """(images as they come out of JPEG files, bytes of these files and labels)."""
    import torch

    rows: list[torch.Tensor] = []
    images: list[torch.Tensor] = []
    stored = 0
    for label in pool.classes:
        left, first = share, True
        for row in pool.indices_of(label):
            file, image = _jpeg(pool.images[row])
            left -= len(file) + LABEL_BYTES
            if left < 0 and not first:
                break
            stored, first = stored + len(file) + LABEL_BYTES, False
            rows.append(row)
            images.append(image)
    return replace(pool.select(torch.stack(rows)), images=torch.stack(images)), stored


def _jpeg(image: torch.Tensor) -> tuple[bytes, torch.Tensor]:
    """(the file, what it shows) of a uint8 image [ch, H, W]."""
    import numpy as np
    import torch
    from PIL import Image

    array = image.permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(
        buffer, "JPEG", quality=QUALITY, optimize=True
    )
    shown = np.atleast_3d(np.asarray(Image.open(buffer)))
    return buffer.getvalue(), torch.from_numpy(shown.copy()).permute(2, 0, 1).contiguous()
