"""Steps recorded as CUDA graphs: small networks on a GPU wait for launches, not for arithmetic.

What a step needs from the host (draws, rows of real images, a step size) is made first and handed over as tensors;
the rest of it is a function of these and of tensors that stay where they are (images, weights, momentum). Such a
function is recorded once for each shape of its inputs and replayed from then on. On a CPU it is simply called, so both
devices run the same lines.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import torch

Function = Callable[..., Any]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]

# calls before a recording: libraries choose algorithms and optimisers make their buffers in the first ones
WARM_UP = 3


class Captured:
    """`function(*tensors)`, returning a tensor or a tuple of them, replayed where its device can.

    The function may change tensors it closes over in place, but must not read a value on the host, copy from it, or
    depend on anything but its inputs and such tensors. Every call counts once, the first ones too. What a replay
    returns is overwritten by the next call with the same shapes, unless `keep`.
    """

    def __init__(self, function: Function, keep: bool = False):
        self.function, self._keep = function, keep
        self._record = os.environ.get("FYI_BENCH_GRAPHS", "1") != "0"
        self._calls: Counter[Shapes] = Counter()
        self._replays: dict[Shapes, Function] = {}
        if (made := _MADE_HERE.get()) is not None:
            made.add(self)

    def release(self) -> None:
        """Give back what it holds: it cannot be called any more."""
        self._replays.clear()
        self.function = _released

    def __call__(self, *inputs: torch.Tensor) -> Any:
        device = DEVICES.get(inputs[0].device.type) if self._record else None
        if device is None:
            return self.function(*inputs)
        shapes = tuple((t.shape, t.dtype) for t in inputs)
        if shapes not in self._replays:
            self._calls[shapes] += 1
            if self._calls[shapes] <= WARM_UP:
                return device.warm_up(self.function, inputs)
            try:
                self._replays[shapes] = device.record(self.function, inputs)
            except RuntimeError as error:
                warnings.warn(f"A step could not be recorded and runs unrecorded: {error}", stacklevel=2)
                self._record = False
                return self.function(*inputs)
        outputs = self._replays[shapes](*inputs)
        if not self._keep:
            return outputs
        return outputs.clone() if isinstance(outputs, torch.Tensor) else tuple(t.clone() for t in outputs)


# what is made inside the innermost `recordings`; what is made outside of all keeps itself
_MADE_HERE: ContextVar[WeakSet[Captured] | None] = ContextVar("recordings", default=None)


@contextlib.contextmanager
def recordings() -> Iterator[None]:
    """What is recorded inside ends with it; as a decorator: with the call.

    A step belongs to an object (a method, a training) that the step itself knows. Only Python's collector would find
    such a circle, some time, and with it gigabytes of a GPU's memory.
    """
    made: WeakSet[Captured] = WeakSet()
    token = _MADE_HERE.set(made)
    try:
        yield
    finally:
        _MADE_HERE.reset(token)
        for one in made:
            one.release()


def _released(*inputs: torch.Tensor) -> Any:
    raise RuntimeError("This step was released with the run it belonged to.")


class CudaGraphs:
    """How a CUDA device runs a function before and after it is recorded."""

    @staticmethod
    def warm_up(function: Function, inputs: Sequence[torch.Tensor]) -> Any:
        """Call it on a stream of its own, as recording asks of the calls before it."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            outputs = function(*inputs)
        here.wait_stream(aside)
        return outputs

    @staticmethod
    def record(function: Function, inputs: Sequence[torch.Tensor]) -> Function:
        """Record without running; the result copies new inputs into the recorded ones and replays."""
        kept = [t.detach().clone() for t in inputs]
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # cuBLAS keeps a workspace for each stream, and a recording keeps that of the stream it was recorded on: steps
        # that are replayed side by side and share one wait for each other for ever
        own = None if here == torch.cuda.default_stream() else here
        # thread-local: a worker thread that frees memory elsewhere must not spoil the recording
        with torch.cuda.graph(graph, stream=own, capture_error_mode="thread_local"):
            outputs = function(*kept)

        def replay(*given: torch.Tensor) -> Any:
            for old, new in zip(kept, given, strict=True):
                old.copy_(new, non_blocking=True)
            graph.replay()
            return outputs

        return replay


# device type -> how its steps are recorded
DEVICES: dict[str, Any] = {"cuda": CudaGraphs}


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on `device`, without waiting for what the device is doing."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
