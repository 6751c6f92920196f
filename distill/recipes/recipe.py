"""The hyper-parameters of (method, data set, images a class, protocol), each with the source of its value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill.methods import METHODS
from distill.recipes.declared import QUICK, Declared, Table, declared, lenders
from distill.recipes.keys import show
from fyi_bench.errors import DataError, UnknownNameError, UsageError, unknown_name_message
from fyi_bench.files import digest_of
from fyi_bench.registry import PluginError

SET_BY_USER = "set by the user"
USUAL_IPC = (1, 10, 50)
# protocols that distil as published, but for what a method declares for one of them
_AS_PUBLISHED = re.compile(r"paper|legacy(-.+)?")
_FYI_CODE = "legacy-fyi-code"
_FYI_DRAWS = Table(
    {"dispatcher": "dsa-flip-first"}, {}, {"dispatcher": "cvlab-yonsei/FYI DC_DSA_DM/utils.py, MTT/utils.py"}, {}, {}
)
_INFERRED = " [inferred: "  # stands between a source and the reason
_NO_DATA = "no values for this data set: the method's common ones"


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters and where they come from.

    values: key -> value (int, float, bool, str, or a tuple of numbers); the method declares the keys.
    sources: key -> where the value is published, with the reason in brackets where it is inferred.
    inferred: keys whose value is not published for this method, data set and images a class.
    notes, fyi_notes: what is known to differ from what is published, with any flip or with FYI alone.
    fyi_inferred: keys whose values are not published with FYI, and why.
    overrides: what the user changed.
    """

    method: str
    dataset: str
    ipc: int
    protocol: str
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    inferred: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    fyi_notes: tuple[str, ...] = ()
    fyi_inferred: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """16 hex digits of method and values: equal digests mean equal hyper-parameters, whatever their sources."""
        return digest_of({"method": self.method, "values": dict(self.values)})

    @property
    def used(self) -> frozenset[str]:
        """The keys that the method does something with."""
        return frozenset(METHODS.get(self.method).Config.__dataclass_fields__)

    @property
    def label(self) -> str:
        """The protocol with what the user changed, for example 'paper+lr_img=0.2'."""
        return self.protocol + "".join(f"+{key}={show(value)}" for key, value in sorted(self.overrides.items()))

    def remarks(self, flip: str) -> list[str]:
        """What whoever sees a number made with it and a flip should know: its notes, and what is inferred and why."""
        from distill.fyi import FLIPS  # with torch, which lists of recipes do without

        keys: dict[str, list[str]] = {}
        for key in sorted(self.inferred):
            keys.setdefault(self.sources[key].partition(_INFERRED)[2].removesuffix("]"), []).append(key)
        with_fyi = [*self.fyi_notes, *(f"{key} inferred with FYI: {why}" for key, why in self.fyi_inferred.items())]
        of_flip = [FLIPS.get(flip).note] if flip in FLIPS.names() and FLIPS.get(flip).note else []
        marks = [
            f"{'all values' if len(own) == len(self.values) else ', '.join(own)} inferred: {why}"
            for why, own in keys.items()
        ]
        return [*self.notes, *(with_fyi if flip == "fyi" else ()), *of_flip, *marks]

    def with_overrides(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with values given by the user, as text ('1.0', 'true', '1200,1600') or already typed.

        Raises UsageError for a key the recipe does not have (with the nearest one) or that the method does not use,
        or a value of the wrong type.
        """
        keys = declared(self.method).keys
        for key in changes:
            if key not in self.values:
                raise UsageError(unknown_name_message(f"key of the {self.method} recipe", key, self.values))
        parsed = {key: keys[key].parse(value) for key, value in changes.items()}
        changed = {key: value for key, value in parsed.items() if value != self.values[key]}
        for key in sorted(changed.keys() - self.used):
            raise UsageError(
                f"{self.method} does nothing with {key}: it stays {show(self.values[key])}.\nLeave it out."
            )
        return replace(
            self,
            values={**self.values, **parsed},
            sources={**self.sources, **dict.fromkeys(parsed, SET_BY_USER)},
            inferred=self.inferred - set(parsed),
            fyi_inferred={key: why for key, why in self.fyi_inferred.items() if key not in parsed},
            overrides={**self.overrides, **changed},
        )


def recipe(method: str, dataset: str, ipc: int, protocol: str = "paper") -> Recipe:
    """The recipe of a method for a data set at `ipc` images a class.

    Order of the tables, later ones win: the method it extends, its common values, the data set's, each followed by
    the table for the images a class; then the same of the tables it declares for that protocol (they change values,
    they bring no keys). Images a class without published values take those of the largest published number that is not
    above, else of the smallest; data sets without values borrow as datasets.toml says, else take the common ones. Both
    are marked. Raises UnknownNameError for a method or protocol, UsageError for an impossible number of images.
    """
    method = METHODS.spelled(method)
    chain = declared(method).chain
    if protocol != QUICK and not _AS_PUBLISHED.fullmatch(protocol):
        raise UnknownNameError("protocol", protocol, ["paper", QUICK])
    if ipc < 1:
        raise UsageError(f"Images per class must be 1 or more, not {ipc}.")
    found = _Collected()
    for layer, why in _published_layers(chain, dataset, ipc):
        found.put(layer, ipc, why)
    known = set(found.values)
    for layer in _protocol_layers(chain, protocol, dataset, ipc):
        found.put(layer, ipc)
    if protocol == _FYI_CODE and found.values.get("dispatcher") == "dsa":  # whatever method draws as DSA does
        found.put(_FYI_DRAWS, ipc)
    foreign = sorted(set(found.values) - known)
    if foreign:
        raise DataError(f"The protocol '{protocol}' sets '{foreign[0]}', which the {method} recipe does not have.")
    notes, fyi_notes = tuple(dict.fromkeys(found.notes)), tuple(dict.fromkeys(found.fyi_notes))
    marks = frozenset(found.inferred)
    return Recipe(
        method, dataset, ipc, protocol, found.values, found.sources, marks, notes, fyi_notes, found.fyi_inferred
    )


def list_recipes(
    method: str | None = None, dataset: str | None = None, protocol: str = "paper"
) -> list[dict[str, Any]]:
    """One row per method, data set and images a class that recipes know of, for `fyi-bench ls recipes`.

    Keys of a row: method, dataset, ipc, main (text of the values that differ most), status ('published', how many
    values are 'inferred', or 'broken'), source (of the step size, or what is broken), digest.
    """
    rows = []
    for name in [method] if method else METHODS.names():
        try:
            chain = declared(name).chain
            rows += [
                _row(recipe(name, data, ipc, protocol))
                for data in ([dataset] if dataset else _datasets(chain))
                for ipc in _published(chain, data) or USUAL_IPC
            ]
        except UnknownNameError:  # of the method or the protocol that was asked for
            raise
        except (DataError, PluginError, UsageError) as error:
            # one method's mistake is no reason not to list the others
            rows.append({**dict.fromkeys(_COLUMNS, ""), "method": name, "status": "broken", "source": str(error)})
    return rows


_COLUMNS = ("method", "dataset", "ipc", "main", "status", "source", "digest")
_MAIN = ("model", "iterations", "lr_img", "outer_loop", "inner_loop", "syn_steps", "max_start_epoch", "init", "augment")


def _row(found: Recipe) -> dict[str, Any]:
    inferred = sorted(found.inferred)
    main = " ".join(f"{key}={show(found.values[key])}" for key in _MAIN if key in found.values)
    status = f"{len(inferred)} of {len(found.values)} inferred" if inferred else "published"
    source = found.sources.get("lr_img", "")
    return dict(
        zip(_COLUMNS, (found.method, found.dataset, found.ipc, main, status, source, found.digest), strict=True)
    )


def _datasets(chain: Sequence[Declared]) -> list[str]:
    """Data sets with a table of their own, families by their first member; 'any' where it does not matter."""
    first = {family: member for member, family in reversed(list(lenders()[0].items()))}
    names = {name for one in chain for name in one.tables if name != "common"}
    return sorted(first.get(name, name) for name in names) or ["any"]


def _published(chain: Sequence[Declared], dataset: str) -> tuple[int, ...]:
    """Images a class with published values, () where the values hold for any; the last table that says so wins."""
    said = [table.published for table in _tables(chain, _home(chain, dataset)[0]) if table.published]
    return said[-1] if said else ()


def _home(chain: Sequence[Declared], dataset: str) -> tuple[tuple[str, ...], str]:
    """Tables of a data set's values, base first, and why they count as inferred ('' if not)."""
    families, borrowing = lenders()
    known = {name for one in chain for name in one.tables}
    borrowed, why = borrowing.get(dataset, ("", ""))
    own = dataset if dataset in known else families.get(dataset, dataset)
    names: tuple[str, ...] = (own,) if own in known else (borrowed,) if borrowed in known else ()
    if own == dataset and families.get(dataset) in known:  # a member that differs from its family in some values
        names = (families[dataset], own)
    why = why if names == (borrowed,) else ""
    tables = [one.tables[own] for one in chain if own in one.tables]
    likes = [table.like for table in tables if table.like]
    if likes:
        names, why = (likes[-1], own), f"no values of its own: those of {likes[-1]}"
    why = next((table.unpublished for table in reversed(tables) if table.unpublished), why)
    if not names and not any(one.tables["common"].any_dataset for one in chain if "common" in one.tables):
        why = _NO_DATA
    return names, why


def _tables(chain: Sequence[Declared], names: Sequence[str]) -> Iterator[Table]:
    for one in chain:
        yield from (one.tables[name] for name in ("common", *names) if name in one.tables)


def _published_layers(chain: Sequence[Declared], dataset: str, ipc: int) -> Iterator[tuple[Table, str]]:
    """Layers from the bottom up, each with the reason why its values are inferred ('' if they are not)."""
    names, why = _home(chain, dataset)
    published = _published(chain, dataset)
    nearest = max((n for n in published if n <= ipc), default=min(published, default=ipc))
    rule = "" if nearest == ipc else f"{ipc} images per class are not published: the value at {nearest}"
    for table in _tables(chain, names):
        yield from zip(table.layers(nearest), (why, why or rule), strict=False)


def _protocol_layers(chain: Sequence[Declared], protocol: str, dataset: str, ipc: int) -> Iterator[Table]:
    """Layers of the tables for a protocol; their values are chosen, not inferred."""
    families, borrowing = lenders()
    names = ("common", borrowing.get(dataset, ("",))[0], families.get(dataset, ""), dataset)
    for one in chain:
        tables = one.protocols.get(protocol, {})
        for table in (tables[name] for name in names if name in tables):
            yield from table.layers(ipc)


class _Collected:
    """Values while the layers are put on top of each other."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.inferred: set[str] = set()
        self.notes: list[str] = []
        self.fyi_notes: list[str] = []
        self.fyi_inferred: dict[str, str] = {}

    def put(self, layer: Table, ipc: int, why: str = "") -> None:
        """Lay a layer over what is there."""
        scaled = {key: float(f"{value * ipc:.12g}") for key, value in layer.scaled.items()}
        for key, value in {**layer.values, **scaled}.items():
            self.values[key], self.sources[key] = value, layer.sources[key]
            self.inferred.discard(key)
            self.fyi_inferred.pop(key, None)
            self._infer(key, "; ".join(filter(None, (layer.inferred.get(key, ""), why))))
        for key in set(layer.inferred) - set(layer.sources):
            self._infer(key, layer.inferred[key])
        self.notes.extend(layer.notes)
        self.fyi_notes.extend(layer.fyi_notes)
        self.fyi_inferred |= layer.fyi_inferred

    def _infer(self, key: str, reason: str) -> None:
        if reason:
            if key not in self.sources:
                raise DataError(f"A recipe calls '{key}' inferred, and no table before it has a value of it.")
            self.inferred.add(key)
            self.sources[key] += f"{_INFERRED}{reason}]"
