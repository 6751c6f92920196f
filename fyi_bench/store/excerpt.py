"""What of a store is shown to others: finished runs of one protocol, without large files and without real images.

A run keeps its record; a file that is left behind stays known by the digest in it, and `ABSENT` names it as absent on
purpose. So tables of an excerpt are those of the store it came from, and a merge of the whole store completes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from downstream.protocol import procedure
from fyi_bench.errors import FyiBenchError
from fyi_bench.files import canonical_json, remove, write_json
from fyi_bench.store.run_dir import ABSENT, final_record, read_config
from fyi_bench.store.store import Store

LARGE = 100_000  # bytes: a file of a run that is no small set stays behind from this size on
SHOWN_IPC = 1  # sets of so many images a class are shown as files
_PLACE = re.compile(r"(^|:)(/(?!/)|~|[A-Za-z]:[\\/])")  # a path, alone or after a word as in imagefolder:/data


def runs_of_protocol(store: Store, protocol: str, on_the_way: bool = False) -> set[str]:
    """Digests of the finished runs measured by a protocol, however often it was repeated, and of sets by its recipe.

    With them come the runs they were made of, and scores of these sets that no protocol rules (unequalness).
    on_the_way: also shorter runs that are the beginning of one of these sets.
    """
    runs = {info.digest: info for info in store.ls() if info.state == "done"}
    named = {digest: read_config(info.folder).get("notes", {}).get("protocol") for digest, info in runs.items()}
    needs = {digest: {text for text in _texts(info.inputs) if text in runs} for digest, info in runs.items()}
    taken = {digest for digest, name in named.items() if name and procedure(name) == protocol}
    sets = {digest: info.inputs for digest, info in runs.items() if info.kind == "distill"}
    taken |= {digest for digest, made in sets.items() if _by_recipe(made, protocol)}
    if on_the_way:
        whole = {_without_length(sets[digest]) for digest in taken & sets.keys()}
        taken |= {digest for digest, made in sets.items() if _without_length(made) in whole}
    found = set(taken)
    while found:
        found = set().union(*(needs[digest] for digest in found)) - taken
        taken |= found
    scores = {d for d, info in runs.items() if "set" in info.inputs and not named[d] and needs[d]}
    return taken | {digest for digest in scores if needs[digest] <= taken}


def _by_recipe(made: Mapping[str, Any], protocol: str) -> bool:
    """Whether a set was made with the values that the protocol's recipe has for it."""
    from distill.fyi import FLIPS
    from distill.methods import METHODS
    from distill.recipes import recipe

    try:
        method, flip = METHODS.get(made["method"]), FLIPS.get(made["flip"])
        config = method.Config.from_values(recipe(made["method"], made["dataset"], made["ipc"], protocol).values)
        return canonical_json(method.values_of(config, made["ipc"], flip.multiplier)) == canonical_json(made["config"])
    except (FyiBenchError, KeyError):  # a plug-in that is not here, no recipe, or a run that says less of itself
        return False


def _without_length(made: Mapping[str, Any]) -> str:
    config = {key: value for key, value in made.get("config", {}).items() if key != "iterations"}
    return canonical_json({**made, "config": config})


def place_in(folder: Path) -> str:
    """A path of the machine it was computed on that a finished run mentions; '' where there is none."""
    contents = map(without_folders, (final_record(folder) or {}, read_config(folder)))
    return next((text for text in _texts(list(contents)) if _PLACE.search(text)), "")


def without_folders(content: dict[str, Any]) -> dict[str, Any]:
    """A record or config whose notes name given files without their folders: a digest of the inputs tells the set."""
    notes = content.get("notes", [])
    shortened = [{key: _named(key, value) for key, value in note.items()} for note in _listed(notes)]
    return {**content, "notes": shortened if isinstance(notes, list) else shortened[0]} if notes else content


def _listed(notes: Any) -> list[dict[str, Any]]:
    return notes if isinstance(notes, list) else [notes]


def _named(key: str, value: Any) -> Any:
    if key == "file" and isinstance(value, str):
        return re.split(r"[\\/]", value)[-1]
    return [_named("file", one) for one in value] if key == "files" and isinstance(value, list) else value


def left_behind(record: dict[str, Any]) -> list[str]:
    """Names of the artefacts of a finished run that an excerpt has by digest alone."""
    files = record["artefacts"]
    if _shown(record):
        return []
    large = (name for name, facts in files.items() if facts["bytes"] >= LARGE)
    return sorted({*large, *(name for name in files if name.endswith((".safetensors", ".png")))})


def note_absent(folder: Path, names: list[str]) -> None:
    """Keep which artefacts are absent on purpose."""
    if names:
        write_json(folder / ABSENT, names)
    else:
        remove(folder / ABSENT)


def _shown(record: dict[str, Any]) -> bool:
    """Whether the run made a set that is small, and made of no real images."""
    from distill.methods import METHODS
    from distill.methods.random import Coreset

    made = record["config"]
    small = record["kind"] == "distill" and made["ipc"] <= SHOWN_IPC
    return small and made["method"] in METHODS and not issubclass(METHODS.get(made["method"]), Coreset)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)
