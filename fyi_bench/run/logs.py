"""Curves of runs under way in TensorBoard or Weights & Biases: loss, speed, images, accuracy.

A log hears what the display hears, in whichever process computes. What is computed does not know of it, and no digest
does. One that cannot be written says so once and stops; the run goes on.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.run.run_type import Follower, run_type
from fyi_bench.store.spec import RunSpec

if TYPE_CHECKING:
    from PIL.Image import Image

    from distill.image_set import ImageSet

POINTS, PICTURES = 1000, 10  # of a run's curves, and of its set on the way, at most
_SPEED_S = 1.0  # seconds over which speed is told, at least


class Sink(ABC):
    """Where the curves of one run go. place: what the user wrote behind the colon, or '' for the usual one.

    root: of the store. group: the study of the run. resumed: steps that an earlier call has done.
    """

    package: ClassVar[str]

    @abstractmethod
    def __init__(self, place: str, root: Path, group: str, spec: RunSpec, resumed: int): ...

    @abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, by name."""

    @abstractmethod
    def picture(self, step: int, image: Image) -> None:
        """The set as it is at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Sink):
    """Event files, a folder a run: `FOLDER/<study>/<run>`, by default under `tensorboard` in the store."""

    package = "tensorboard"

    def __init__(self, place: str, root: Path, group: str, spec: RunSpec, resumed: int):
        from torch.utils.tensorboard import SummaryWriter

        names = (re.sub(r"[^\w.+-]+", "-", name) for name in (group, run_type(spec).title(spec)))
        folder = (Path(place) if place else root / "tensorboard").joinpath(*names)
        folder = folder.with_name(f"{folder.name}-{spec.digest[:8]}")
        self._writer = SummaryWriter(folder, purge_step=resumed or None, flush_secs=10)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, image: Image) -> None:
        import numpy as np

        self._writer.add_image("set", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Sink):
    """A W&B run for each run, under its digest; offline where WANDB_MODE says so or nobody is logged in."""

    package = "wandb"

    def __init__(self, place: str, root: Path, group: str, spec: RunSpec, resumed: int):
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or (None if wandb.login(prompt=False) else "offline")
        root.mkdir(parents=True, exist_ok=True)
        self._image = wandb.Image
        self._run = wandb.init(
            project=place or os.environ.get("WANDB_PROJECT") or "fyi-bench", group=group, id=spec.digest,
            name=run_type(spec).title(spec), config={"type": spec.kind, **spec.inputs},
            mode=mode,
            dir=os.environ.get("WANDB_DIR") or str(root), resume="allow", reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image) -> None:
        self._run.log({"set": self._image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_log(text: str) -> None:
    """Raise UsageError for a log that is none, or whose package is not installed."""
    name = text.partition(":")[0]
    if name not in SINKS:
        raise UnknownNameError("log", name, SINKS)
    if importlib.util.find_spec(SINKS[name].package) is None:
        raise UsageError(
            f"--log {name} needs the package '{SINKS[name].package}'.\nInstall it (pip install 'fyi-bench[logs]')."
        )


class RunLog(Follower):
    """Curves of one run: at most `POINTS` numbers of each, `PICTURES` pictures. Nothing is opened before there is one.

    text: 'tensorboard', 'wandb:PROJECT' … say(line): told where writing fails.
    """

    pictures = True

    def __init__(self, text: str, root: Path, group: str, spec: RunSpec, say: Callable[[str], None]):
        name, _, place = text.partition(":")
        self._open: Callable[[int], Sink] = lambda resumed: SINKS[name](place, root, group, spec, resumed)
        self._sink: Sink | None = None
        self._metric, self._say, self._name, self._dead = run_type(spec).metric_of(spec), say, name, False
        self._began: tuple[float, int] | None = None  # time and step at which speed was told last
        self._step = self._pictured = self._total = 0
        self._paced = False

    def progress(self, done: int, total: int, loss: float) -> None:
        now = time.monotonic()
        if self._began is None:
            self._total, self._step, self._pictured = total, done - 1, done - 1
            self._numbers(done, {"loss": loss})
            self._step, self._began = done, (time.monotonic(), done)  # opening a log takes a while
            return
        if done - self._step < math.ceil(total / POINTS) and done != total:
            return
        self._step = done
        began, first = self._began
        values = {"loss": loss}
        if done > first and (now - began >= _SPEED_S or (done == total and not self._paced)):
            values["speed"] = (done - first) / max(now - began, 1e-9)
            self._began, self._paced = (now, done), True
        self._numbers(done, values)

    def picture(self, done: int, total: int, look: Callable[[], ImageSet]) -> None:
        if done - self._pictured < math.ceil(total / PICTURES) and done != total:
            return
        self._pictured = done
        self._write(lambda sink: sink.picture(done, look().picture()))

    def ended(self, record: Mapping[str, Any]) -> None:
        # a protocol that tests several times does so at even distances
        name, tests = self._metric.name, record.get("tests", [self._metric.of(record)])
        for number, value in enumerate(tests if name != "loss" else (), 1):  # the loss's curve ends in it
            self._numbers(round(self._total * number / len(tests)), {name: value})

    def _numbers(self, step: int, values: Mapping[str, Any]) -> None:
        told = {name: float(v) for name, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}
        if told:
            self._write(lambda sink: sink.numbers(step, told))

    def _write(self, act: Callable[[Sink], None]) -> None:
        if self._dead:
            return
        try:
            if self._sink is None:
                self._sink = self._open(self._step - 1)
            act(self._sink)
        except Exception as error:  # of a library, a network, a full disk: no matter for the run
            self._dead = True
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"The log '{self._name}' stops: {first} The run goes on.")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sink is not None:
            self._write(lambda sink: sink.close())
