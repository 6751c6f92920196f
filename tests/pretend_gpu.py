"""A GPU that is none: tensors that say they lie on one and keep their values on the CPU.

What a GPU refuses is refused here too: tensors of both devices in one operation, and, while a step is recorded, to
read a value on the host or to make a tensor from one; and to use on one stream what another has written, without
having waited for it. What a GPU would be waited for is counted. So the lines that only a GPU takes run in the tests of
a machine without one; of its speed and its arithmetic they tell nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from distill import captured

GPU = torch.device("cuda", 0)
# PyTorch asks the driver about "cuda" at many places; of this type it knows the name and little else
STANDING_IN = torch.device("lazy", 0)
HERE, THERE = ("cpu",), (GPU.type, STANDING_IN.type)

READ = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero")
INDEXED = ("index", "index_put", "index_put_")  # take their places from either device
COPIES = ("_to_copy", "copy_")  # may see both devices
PINNED = "is_pinned_"


Change = Callable[[Any], Any]
_HOLDERS = {tuple, list, dict}


def mapped(kinds: type | tuple[type, ...], change: Change, value: Any) -> Any:
    """The value with everything of these kinds in its lists, tuples and dicts changed: PyTorch's trees, but quick."""
    holder = type(value)
    if holder is tuple or holder is list:
        return holder(
            [
                change(each) if isinstance(each, kinds)
                else mapped(kinds, change, each) if type(each) in _HOLDERS
                else each
                for each in value
            ]
        )  # fmt: skip
    if holder is dict:
        return {key: mapped(kinds, change, each) for key, each in value.items()} if value else value
    return change(value) if isinstance(value, kinds) else value


def tensors_in(*values: Any) -> list[torch.Tensor]:
    """The tensors in lists, tuples and dicts."""
    found: list[torch.Tensor] = []
    mapped(torch.Tensor, found.append, values)
    return found


@functools.cache
def _shares(operation: Any) -> bool:
    """Whether what an operation gives back may be memory that it was given."""
    return any(each.alias_info for each in (*operation._schema.arguments, *operation._schema.returns))


class OnGpu(torch.Tensor):
    """A tensor whose device is "cuda:0"; `values_` holds its numbers."""

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnGpu:
        return torch.Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=STANDING_IN, requires_grad=False,
        )  # fmt: skip

    def __init__(self, values: torch.Tensor):
        self.values_ = values

    def __repr__(self) -> str:
        return f"OnGpu({self.values_})"

    def tolist(self) -> Any:
        """PyTorch's own knows no subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} after the pretended GPU was gone")


class Mode(TorchDispatchMode):
    """A mode that does without torch._dynamo: nothing is compiled here, and to load it takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class PretendedGpu(Mode):
    """While it is on, device "cuda" exists. `waits`: for what the host would have waited, and how often.

    recorded, replayed: steps, as by `distill.captured.CudaGraphs`, for which it stands in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.recorded = self.replayed = 0
        self._recording = False
        self.stream = _Stream()  # the current one
        self._written: dict[int, tuple[_Stream, int]] = {}  # address of memory -> who wrote it, in which operation

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = operation._schema.name.split("::")[1]
        tensors = tensors_in(args, kwargs)
        there = [t for t in tensors if isinstance(t, OnGpu)]
        asked = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if not there and asked not in THERE:
            if self._recording and name.startswith(("lift_fresh", *READ)):
                raise RuntimeError(f"{name} while recording")
            return operation(*args, **kwargs)
        to_host = bool(there) and (asked in HERE or (name == "copy_" and not isinstance(args[0], OnGpu)))
        self._check(operation, name, tensors, to_host)
        self._in_order(operation, there)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        plain_args, plain_kwargs = mapped(OnGpu, lambda t: t.values_, (args, kwargs))
        out = operation(*plain_args, **plain_kwargs)
        self.stream.done += 1
        changed = [a for a, of in zip(args, operation._schema.arguments) if of.alias_info and of.alias_info.is_write]
        for tensor in tensors_in(out if not to_host else (), changed):
            self._written[_address(tensor)] = self.stream, self.stream.done
        if to_host:  # never the device's memory itself
            return args[0] if name == "copy_" else out.clone()
        out = mapped(torch.Tensor, OnGpu, out)
        return return_and_correct_aliasing(operation, args, kwargs, out) if there and _shares(operation) else out

    def _in_order(self, operation: Any, tensors: Sequence[OnGpu]) -> None:
        """Refuse what would be read, or written over, before another stream is done with it."""
        for tensor in tensors:
            writer, number = self._written.get(_address(tensor), (self.stream, 0))
            if writer is not self.stream and self.stream.waited.get(writer, 0) < number:
                raise RuntimeError(f"{operation}: a tensor of a stream that this one has not waited for")

    @contextlib.contextmanager
    def on(self, stream: _Stream) -> Iterator[None]:
        """What is done inside is done on this stream."""
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before

    def _check(self, operation: Any, name: str, tensors: Sequence[torch.Tensor], to_host: bool) -> None:
        """Refuse or count. A number, which is what a tensor without dimensions is, may come from the host."""
        here = [t for t in tensors if not isinstance(t, OnGpu) and t.ndim > 0]
        by_mask = name in INDEXED and any(t.dtype == torch.bool for t in tensors[1:])
        if name.startswith(READ) or by_mask:
            self._wait("read of a value")
        elif to_host:
            self._wait("copy to the host")
        elif here and name not in (*COPIES, *INDEXED):
            shapes = [tuple(t.shape) for t in here]
            raise RuntimeError(f"{operation}: tensors on cuda and cpu, the latter {shapes}")
        elif here and (self._recording or not all(hasattr(t, PINNED) for t in here)):
            self._wait("copy from pageable memory")

    def _wait(self, what: str) -> None:
        if self._recording:
            raise RuntimeError(f"{what} while recording")
        self.waits[what] += 1

    def warm_up(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
        """A call before the recording."""
        return function(*inputs)

    def record(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        """A recording: it runs the function again, by the rules of one."""
        self.recorded += 1

        def replay(*given: torch.Tensor) -> Any:
            self.replayed += 1
            self._recording = True
            try:
                return function(*given)
            finally:
                self._recording = False

        return replay


class _Named(TorchFunctionMode):
    """Who asks for "cuda" gets the device that stands in for it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.device:
            args, kwargs = mapped((torch.device, str), self._meant, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    @staticmethod
    def _meant(value: Any) -> Any:
        return STANDING_IN if str(value) in ("cuda", "cuda:0") else value


class _Stream:
    """done: operations so far. waited: of other streams, up to which of theirs this one has waited."""

    def __init__(self) -> None:
        self.done = 0
        self.waited: dict[_Stream, int] = {}

    def wait_stream(self, other: _Stream) -> None:
        for stream, number in {**other.waited, other: other.done}.items():
            self.waited[stream] = max(number, self.waited.get(stream, 0))


def _address(tensor: torch.Tensor) -> int:
    values = tensor.values_ if isinstance(tensor, OnGpu) else tensor
    return values.untyped_storage().data_ptr()


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.clone()
    setattr(copy, PINNED, True)
    return copy


_DRIVER = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "is_bf16_supported": lambda *given: True,
    "device_count": lambda: 1,
    "set_device": lambda number: None,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "a pretended GPU",
    "max_memory_allocated": lambda device=None: 0,
    "synchronize": lambda device=None: None,
    "Stream": _Stream,
}

# operations set the device of their tensors for a moment, which means nothing here
_GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace { C10_REGISTER_GUARD_IMPL(Lazy, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::Lazy>); }
"""


@functools.cache
def _device_is_known() -> bool:
    """Make the device known to PyTorch in this process; False where there is no compiler for that."""
    compiler, root = shutil.which("g++") or shutil.which("clang++"), Path(torch.__file__).parent
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "guard.cpp", Path(folder) / "guard.so"
        source.write_text(_GUARD)
        command = [compiler, "-std=c++20", "-shared", "-fPIC", f"-I{root}/include", source, f"-L{root}/lib", "-lc10"]
        subprocess.run([*command, "-o", made], check=True, capture_output=True)
        ctypes.CDLL(str(made))
    return True


@contextlib.contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, everything takes a pretended GPU for a real one. Skips the test where that cannot be had."""
    if not _device_is_known():
        pytest.skip("no C++ compiler to make a pretended GPU known to PyTorch")
    gpu = PretendedGpu()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _DRIVER.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: gpu.stream)
        patch.setattr(torch.cuda, "stream", gpu.on)
        patch.setattr(torch.Tensor, "pin_memory", _pinned)
        patch.setitem(captured.DEVICES, "cuda", gpu)
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(…, device="cuda") would pass the mode by
        torch.__future__.set_swap_module_params_on_conversion(True)  # else parameters would stay what they are
        try:
            with _Named(), gpu:
                yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_swap_module_params_on_conversion(False)
