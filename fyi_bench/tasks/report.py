"""The report of a store, its sections filled by the tasks."""

from __future__ import annotations

from pathlib import Path

from fyi_bench.store.store import Store
from fyi_bench.tasks.base import TASKS, Task

# tasks as they follow each other on the page; then those of others
_ORDER = ("distill", "accuracy", "cross-arch", "robust", "continual", "nas", "experts")


def section_makers() -> dict[str, Task]:
    """What fills a section, by the task of its record, in the order of the page.

    A plug-in that cannot be used is left out; its own command says what is wrong with it.
    """
    usable, _ = TASKS.usable()
    names = [*_ORDER, *(name for name in usable if name not in _ORDER)]
    return {name: usable[name]() for name in names if usable[name].keeps}


def write_report(store: Store) -> Path:
    """One self-contained HTML page about everything that finished in the store; its place.

    Raises StoreError where no command has finished.
    """
    from fyi_bench.present.report import report_of_store

    return report_of_store(store, section_makers())
