"""A run spec: one unit of work before it is computed, named by the digest of everything that can change its numbers."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from fyi_bench.errors import UsageError
from fyi_bench.files import digest_of

KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class RunSpec:
    """One unit of work, before it is computed.

    kind: the folder it is filed under, such as "distill" or "evaluate".
    inputs: everything that can change the number, as JSON values: config (precision among it), data digest, seeds,
        the numerics version of each component. They make the digest.
    notes: recorded and not keyed: paths, device, threads, library versions, source digest.

    Both are copied, so that a later change of the caller's dictionaries cannot change the digest.
    Raises UsageError for a number that is not finite, TypeError for a value JSON cannot hold.
    """

    kind: str
    inputs: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise ValueError(f"'{self.kind}' cannot be the type of a run: use a-z, 0-9, - and _")
        for name in ("inputs", "notes"):
            value = getattr(self, name)
            _check_json(value, name)
            object.__setattr__(self, name, json.loads(json.dumps(value)))

    @property
    def digest(self) -> str:
        """16 hex digits over kind and inputs, the same on any machine and for any order of keys."""
        return run_digest(self.kind, self.inputs)

    def __hash__(self) -> int:
        return hash(self.digest)


def run_digest(kind: str, inputs: dict[str, Any]) -> str:
    """16 hex digits over kind and inputs, the same on any machine and for any order of keys."""
    return digest_of({"kind": kind, "inputs": inputs})


def _check_json(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, which is not a string")
            _check_json(entry, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _check_json(entry, f"{where}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where.removeprefix('inputs.')} is {value}.\nGive a finite number.")
    elif not isinstance(value, str | int | float | bool | None):
        raise TypeError(f"{where} is a {type(value).__name__}, which is no JSON value")
