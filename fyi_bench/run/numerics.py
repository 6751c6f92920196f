"""Declared numerics versions of the components a run uses: part of its digest."""

from __future__ import annotations

import functools


@functools.cache
def numerics() -> dict[str, int]:
    """Numerics version of each family of components."""
    import search_space
    from distill import augment, cutmix, decode, engine, experts, fyi, trajectory
    from downstream import accuracy, continual, training

    return {
        "engine": engine.NUMERICS,
        "augment": augment.NUMERICS,
        "flip": fyi.NUMERICS,
        "cutmix": cutmix.NUMERICS,
        "decode": decode.NUMERICS,
        "expert": experts.NUMERICS,
        "trajectory": trajectory.NUMERICS,
        "network": search_space.NUMERICS_VERSION,
        "trainer": training.NUMERICS,
        "accuracy": accuracy.NUMERICS,
        "continual": continual.NUMERICS,
    }


def using(*components: str) -> dict[str, int]:
    """Numerics versions of the components a run uses."""
    return {name: numerics()[name] for name in components}
