"""Numerics of the components a run uses: they stand in its inputs, so that new numbers never pass for old results."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from fyi_bench.errors import DataError, UnknownNameError
from fyi_bench.registry import Registry

# in a run's numerics: the compiled CPU operations it does without. Where all are there, as they nearly always are, it
# is left out, so that digests from before it stay
WITHOUT = "without native"


@functools.cache
def numerics() -> dict[str, int]:
    """Declared numerics version of each family of built-in components."""
    import search_space
    from distill import augment, batches, cutmix, decode, decoders, engine, experts, fyi, kernels, trajectory
    from downstream import accuracy, attention, continual, nas, probe, robust_scores, training, zero_cost

    return {
        "engine": engine.NUMERICS,
        "augment": augment.NUMERICS,
        "batches": batches.NUMERICS,
        "flip": fyi.NUMERICS,
        "cutmix": cutmix.NUMERICS,
        "decode": decode.NUMERICS,
        "decoder": decoders.NUMERICS,
        "expert": experts.NUMERICS,
        "kernel": kernels.NUMERICS,
        "trajectory": trajectory.NUMERICS,
        "network": search_space.NUMERICS_VERSION,
        "trainer": training.NUMERICS,
        "accuracy": accuracy.NUMERICS,
        "attention": attention.NUMERICS,
        "continual": continual.NUMERICS,
        "stream": continual.STREAM_NUMERICS,
        "nas": nas.NUMERICS,
        "probe": probe.NUMERICS,
        "robust": robust_scores.NUMERICS,
        "zero-cost": zero_cost.NUMERICS,
    }


def using(*families: str, settings: Iterable[Any] = ()) -> dict[str, int | str]:
    """Numerics of the components a run uses: of these families, and of each plug-in that its settings name.

    settings: values of the run's inputs (a method's config, a protocol, the flip). A text among them that is the name
    of a plug-in's architecture or flip, or has an augmentation operation of a plug-in in it, adds 'architecture NAME',
    'flip NAME' or 'augmentation NAME'. One that begins with a search space and a colon adds 'space NAME'.
    """
    found: dict[str, int | str] = {family: numerics()[family] for family in families}
    if "network" in families and (without := _without_native()):
        found[WITHOUT] = without
    texts = {text for text in settings if isinstance(text, str)}
    words = {word for text in texts for word in text.lower().split("_")}
    for role, registry in _plugged().items():
        for name in sorted(registry.from_outside() & (texts | words if role == "augmentation" else texts)):
            found[f"{role} {name}"] = registry.numerics(name)
    spaces = {text.partition(":")[0] for text in texts if ":" in text} & set(_plugged()["space"])
    found |= {f"space {name}": _plugged()["space"].numerics(name) for name in sorted(spaces)}
    return found


def check_numerics(planned: Mapping[str, int | str], device: str = "cpu") -> None:
    """Raise DataError where this installation computes other numbers than the one that planned a run."""
    lacking, planned_without = _without_native() if "network" in planned else "", planned.get(WITHOUT, "")
    if device == "cpu" and lacking != planned_without:
        raise DataError(
            f"The run was planned {'without' if planned_without else 'with'} compiled operations, this process has"
            f" {'none of ' + lacking if lacking else 'them'}: other bits.\n"
            "Give every machine a C++ compiler (g++), or none of them: FYI_BENCH_NATIVE=0 for all."
        )
    for component, version in planned.items():
        here = _here(component, version)
        if here != version:
            raise DataError(
                f"The run was planned with version {version} of the component '{component}', here is {here}.\n"
                "Install the same fyi-bench, and the same plug-ins, on every machine."
            )


def _without_native() -> str:
    """Compiled operations that a network on this machine's CPU does without; where there is a GPU none is asked for."""
    import torch

    from search_space import native

    return "" if torch.cuda.is_available() else " ".join(native.missing())


def _here(component: str, otherwise: int | str) -> int | str:
    role, _, name = component.partition(" ")
    if name and role in _plugged():
        try:
            return _plugged()[role].numerics(name)
        except UnknownNameError:
            return "none"
    return numerics().get(component, otherwise)


@functools.cache
def _plugged() -> dict[str, Registry]:
    """Registries whose entries a run's settings name."""
    import search_space
    from distill.augment_ops import OPERATIONS
    from distill.fyi import FLIPS
    from search_space.spaces import SPACES

    return {"architecture": search_space.ARCHITECTURES, "flip": FLIPS, "augmentation": OPERATIONS, "space": SPACES}
