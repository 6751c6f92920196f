"""A GPU that is none: tensors that say they lie on one and keep their values on the CPU.

What a GPU refuses is refused here too: tensors of both devices in one operation, and, while a step is recorded, to
read a value on the host or to make a tensor from one. What a GPU would wait for is counted. So the lines that only a
GPU takes run in the tests of a machine without one; how fast they are, and its arithmetic, they do not tell.
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
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from distill import captured

READ = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "unique_consecutive", "is_nonzero")
BETWEEN = ("_to_copy", "copy_", "_pin_memory")  # may see both devices


# PyTorch asks the driver about "cuda" at many places; of this type it knows the name and little else
STANDING_IN = torch.device("lazy", 0)
GPU = torch.device("cuda", 0)


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
        raise AssertionError(f"{operation} outside of the pretended GPU")


class PretendGpu(TorchDispatchMode):
    """While it is on, device "cuda" exists. `waits`: what a GPU would have been waited for, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.recorded = self.replayed = 0
        self._recording = False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = operation._schema.name.split("::")[1]
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        here = [t for t in given if isinstance(t, OnGpu)]
        device = kwargs.get("device")
        asked = None if device is None else torch.device(device).type
        if not here and asked not in (GPU.type, STANDING_IN.type):
            if self._recording and name.startswith(("lift_fresh", *READ)):
                raise RuntimeError(f"{name} while recording")
            return operation(*args, **kwargs)
        self._check(name, operation, given, here, asked, kwargs)
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        inner_args, inner_kwargs = tree_map_only(OnGpu, lambda t: t.values_, (args, kwargs))
        out = operation(*inner_args, **inner_kwargs)
        if asked == "cpu" or name == "_local_scalar_dense":
            # a copy on the host, never the device's memory itself
            return tree_map_only(torch.Tensor, lambda t: t.clone() if any(t is i.values_ for i in here) else t, out)
        if isinstance(args[0] if args else None, torch.Tensor) and name == "copy_" and not isinstance(args[0], OnGpu):
            return args[0]
        out = tree_map_only(torch.Tensor, OnGpu, out)
        return return_and_correct_aliasing(operation, args, kwargs, out) if here else out

    def _check(self, name, operation, given, here, asked, kwargs) -> None:
        elsewhere = [t for t in given if not isinstance(t, OnGpu) and t.ndim > 0]
        if name.startswith(READ) or name in ("index", "index_put_") and any(t.dtype == torch.bool for t in given):
            self._wait(name)
        elif name in BETWEEN:
            to_host = bool(here) and (asked == "cpu" or (name == "copy_" and not isinstance(given[0], OnGpu)))
            if to_host:
                self._wait("copy to the host")
            elif elsewhere:
                if not elsewhere[0].is_contiguous() or self._recording:
                    self._wait("copy from the host")
                elif not all(hasattr(t, "is_pinned_") for t in elsewhere):
                    self._wait("copy from pageable memory")
        elif elsewhere:
            raise RuntimeError(f"{operation}: tensors on cuda and cpu, the latter {[tuple(t.shape) for t in elsewhere]}")

    def _wait(self, what: str) -> None:
        if self._recording:
            raise RuntimeError(f"{what} while recording")
        self.waits[what] += 1

    def warm_up(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
        """As `distill.captured` asks of a device."""
        return function(*inputs)

    def record(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Callable[..., Any]:
        """A recording that runs the function again, by the rules of one."""
        self.recorded += 1

        def replay(*given: torch.Tensor) -> Any:
            self.replayed += 1
            self._recording = True
            try:
                return function(*given)
            finally:
                self._recording = False

        return replay


class Named(TorchFunctionMode):
    """Whoever asks for "cuda" gets the device that stands in for it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.device:
            args, kwargs = tree_map(self._meant, (args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    @staticmethod
    def _meant(value: Any) -> Any:
        named = isinstance(value, torch.device | str) and str(value) in ("cuda", "cuda:0")
        return STANDING_IN if named else value


# operations set the device of their tensors for a moment, which is nothing here
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
namespace { C10_REGISTER_GUARD_IMPL(Lazy, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::Lazy>); }
"""


@functools.cache
def _known() -> bool:
    """Make the device known to this process; False where there is no compiler for it."""
    compiler, root = shutil.which("g++") or shutil.which("clang++"), Path(torch.__file__).parent
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "guard.cpp", Path(folder) / "guard.so"
        source.write_text(GUARD)
        command = [compiler, "-std=c++20", "-shared", "-fPIC", f"-I{root}/include", source, f"-L{root}/lib", "-lc10"]
        subprocess.run([*command, "-o", made], check=True, capture_output=True)
        ctypes.CDLL(str(made))
    return True


class Stream:
    """One after another, as everything here."""

    def wait_stream(self, other: Stream) -> None:
        assert isinstance(other, Stream)


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.clone()
    copy.is_pinned_ = True
    return copy


@contextlib.contextmanager
def _nothing(stream: Stream) -> Iterator[None]:
    yield


@pytest.fixture
def gpu(monkeypatch) -> Iterator[PretendGpu]:
    """A pretended GPU that everything takes for a real one."""
    if not _known():
        pytest.skip("no C++ compiler to make a pretended GPU known to PyTorch")
    stream, pretended = Stream(), PretendGpu()
    for name, value in {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 1, "current_device": lambda: 0, "max_memory_allocated": lambda device=None: 0,
        "get_device_name": lambda device=None: "a pretended GPU", "synchronize": lambda device=None: None,
        "Stream": Stream, "current_stream": lambda device=None: stream, "stream": _nothing,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "pin_memory", _pinned)
    monkeypatch.setitem(captured.DEVICES, "cuda", pretended)
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor(…, device="cuda") would pass the mode by
    torch.__future__.set_swap_module_params_on_conversion(True)  # or parameters would stay what they are
    try:
        with Named(), pretended:
            yield pretended
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_swap_module_params_on_conversion(False)
