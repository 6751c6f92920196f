"""Plug-ins for tests: real little distributions in a folder, found by their entry points like installed ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fyi_bench import registry
from fyi_bench.registry import Registry

BASIC = """
from torch import nn


class Net(nn.Module):
    '''Two linear layers of a plug-in.'''

    def __init__(self, channels, size, classes):
        super().__init__()
        self.first, self.classifier = nn.Linear(channels * size * size, 8), nn.Linear(8, classes)

    def embed(self, images):
        return self.first(images.flatten(1)).relu()

    def forward(self, images):
        return self.classifier(self.embed(images))
"""


def distribution(folder: Path, name: str, points: Mapping[str, Mapping[str, str]], **modules: str) -> Path:
    """Write one: entry points by group ({'fyi_bench.methods': {'mine': 'mine:Mine'}}), and modules by name."""
    facts = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [line for group, entries in points.items() for line in (f"[{group}]", *map(" = ".join, entries.items()))]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder


class Plugged:
    """Folder whose distributions are installed for the time of a test; these registries see them and forget them."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *registries: Registry):
        self.folder, self._registries = folder, registries
        patch.syspath_prepend(str(folder))

    def install(self, name: str, points: Mapping[str, Mapping[str, str]], **modules: str) -> None:
        """One more distribution."""
        distribution(self.folder, name, points, **modules)
        self.look()

    def look(self) -> None:
        """What a new process would find: entry points and sources as they are now."""
        importlib.invalidate_caches()
        self._unload()
        registry._source_key.cache_clear()
        for one in self._registries:
            for name in [name for name, owner in one._owners.items() if not owner.built_in]:
                del one._owners[name], one._entries[name]
            one.__dict__.pop("_points", None)

    def _unload(self) -> None:
        for name in [n for n, m in sys.modules.items() if str(self.folder) in str(getattr(m, "__file__", None))]:
            del sys.modules[name]
