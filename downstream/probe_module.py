"""Frozen networks that a user brings along: a function in a Python file, or a module in memory.

This is the user's own code, run because the user names it. It is given float32 pixels [N, channels, H, W] in [0, 1], so
whatever else its images have to be is its own to do; it returns features [N, d], or has `embed` that does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from distill.tensor_file import sha256_of
from fyi_bench.errors import DataError, UsageError
from fyi_bench.files import digest_of, sha256_file
from fyi_bench.rng import stream
from search_space.init import default_generator_from

_LIBRARIES = ("torch", "torchvision")  # whose versions a record holds
_PREFIX = "brought_"  # of the name of a user's file as a module
_PLAIN = (bool, int, float, str)
_LISTED = 5


class BroughtModule(nn.Module):
    """A user's module behind `embed`, with messages that name it where it is not what a probe needs."""

    def __init__(self, module: nn.Module, name: str):
        super().__init__()
        self.module, self.named = module, name

    def embed(self, images: Tensor) -> Tensor:
        """Features, float [N, d]. Raises UsageError where the module raises or returns anything else."""
        of: Callable[[Tensor], Any] = getattr(self.module, "embed", self.module)
        try:
            found = of(images)
        except Exception as error:  # whatever a user's code raises
            raise UsageError(f"{self.named} {_raised(error)}, given images {list(images.shape)}.\nMend it.") from error
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if (
            not isinstance(found, Tensor)
            or found.ndim != 2
            or len(found) != len(images)
            or not found.is_floating_point()
        ):
            raise UsageError(
                f"{self.named} returns {shape} for images {list(images.shape)}, not features [{len(images)}, d].\n"
                "Return a float tensor with one row an image: average or flatten its maps."
            )
        return found


def file_and_name(text: str) -> tuple[Path, str] | None:
    """The parts of 'FILE.py:NAME'; None for anything else."""
    file, colon, name = text.rpartition(":")
    return (Path(file).expanduser(), name) if colon and file.endswith(".py") else None


def module_of_file(file: Path, name: str, seed: int = 0) -> BroughtModule:
    """What the function `name` of a Python file returns, called without arguments, in eval mode.

    Weights that it draws with PyTorch's default generator are a function of the seed. Raises DataError where there is
    no such file, UsageError where it cannot be run, has no such name, or gives no module.
    """
    if not file.is_file():
        raise DataError(f"There is no file {file}.\nName a Python file and a function in it: --probe FILE.py:NAME.")
    there = set(sys.modules)
    sys.path.insert(0, str(file.parent.resolve()))  # as where it is run as a script
    try:
        with default_generator_from(stream(seed, "brought module")):
            return _brought(_named(_run(file), file, name), f"{file}:{name}")
    finally:
        sys.path.pop(0)
        for each in set(sys.modules) - there:  # its neighbours: another file may have others of these names
            place = str(getattr(sys.modules[each], "__file__", ""))
            if place.startswith(str(file.parent.resolve())) and not each.startswith(_PREFIX):
                del sys.modules[each]


def brought(module: Any) -> BroughtModule:
    """A module given in Python. Raises UsageError for what is none."""
    return _brought(module, type(module).__name__)


def key_of(module: BroughtModule, file: Path | None = None) -> dict[str, str]:
    """What tells its features from those of another: its weights, and its code (with the file that it is from).

    Of code outside PyTorch and torchvision the methods of its layers' classes count; what they call elsewhere is seen
    in the file alone.
    """
    inner = module.module
    state = {
        name: [str(value.dtype), list(value.shape), sha256_of(value.detach().cpu().contiguous())]
        for name, value in inner.state_dict().items()
        if isinstance(value, Tensor)
    }
    code = [[repr(layer), _code_of(type(layer)), _plain_values(layer)] for layer in inner.modules()]
    return {"state": digest_of(state), "code": digest_of([code, sha256_file(file) if file else ""])}


def _run(file: Path) -> Mapping[str, Any]:
    loader = SourceFileLoader(f"{_PREFIX}{file.stem}", str(file))
    module = sys.modules[loader.name] = ModuleType(loader.name)  # where dataclasses look for it
    module.__file__ = str(file)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's code raises
        raise UsageError(f"{file} {_raised(error)} when it is run.\nMend it.") from error
    return vars(module)


def _named(content: Mapping[str, Any], file: Path, name: str) -> Any:
    if name not in content:
        own = [
            key
            for key, value in content.items()
            if callable(value) and getattr(value, "__module__", "") == content["__name__"]
        ]
        has = f"It has {', '.join(own[:_LISTED])}." if own else "It defines no function."
        raise UsageError(f"{file} has no '{name}'.\n{has}")
    found = content[name]
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{file}:{name} {_raised(error)} when it is called without arguments.\nMend it.") from error


def _brought(found: Any, name: str) -> BroughtModule:
    if not isinstance(found, nn.Module):
        raise UsageError(
            f"{name} is a {type(found).__name__}, not a torch.nn.Module.\nName a function that returns the network."
        )
    return BroughtModule(found, name).eval()


def _raised(error: BaseException) -> str:
    return f"raises {type(error).__name__} ({(str(error).strip().splitlines() or ['no message'])[0][:160]})"


def _code_of(kind: type) -> list[Any]:
    """Bytecode of the methods of a class and of those it is built on, beside what libraries have."""
    own = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in (*_LIBRARIES, "builtins")]
    return [
        [base.__qualname__, name, _of_code(each.__code__)]
        for base in own
        for name, each in sorted(vars(base).items())
        if isinstance(each, FunctionType)
    ]


def _of_code(code: CodeType) -> list[Any]:
    inner = [_of_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), inner]


def _plain_values(layer: nn.Module) -> list[Any]:
    """Numbers, texts and tensors that a layer keeps beside its weights."""
    found = [(name, value) for name, value in sorted(vars(layer).items()) if name != "training"]
    plain = [[name, repr(value)] for name, value in found if isinstance(value, _PLAIN)]
    return plain + [[name, sha256_of(value.cpu().contiguous())] for name, value in found if isinstance(value, Tensor)]
