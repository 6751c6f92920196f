"""Condensed sets that come as files: read, checked against their data set, and kept as ones of our own format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import UsageError
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.session import Session
from fyi_bench.store.store import IMPORTED
from fyi_bench.tasks.common import size_of_parts

UNKNOWN = "unknown"

if TYPE_CHECKING:
    from distill.image_set import ImageSet
    from fyi_bench.formats import Imported


@dataclass(frozen=True)
class GivenSet:
    """path: of the file in our own format. said: what was guessed about it and what is odd, a line each.

    name: what to call it: as the user says, or where its method is not known as its file; else '', its method says it.
    """

    path: Path
    image_set: ImageSet
    said: Sequence[str]
    name: str = ""

    @property
    def method(self) -> str:
        """The method that the file states, else 'unknown'."""
        return str(self.image_set.provenance.get("method", UNKNOWN))

    @property
    def flip(self) -> str:
        """The flip that the file states, else 'unknown'."""
        return str(self.image_set.provenance.get("flip", UNKNOWN))

    @property
    def reference(self) -> dict[str, str]:
        """How a run refers to it."""
        return {"digest": self.image_set.digest, "file": str(self.path)}

    @property
    def entry(self) -> dict[str, Any]:
        """What the arm of a record says of it."""
        return {
            "method": self.method,
            "flip": self.flip,
            **({"name": self.name} if self.name else {}),
            "ipc": self.image_set.ipc,
            "set": str(self.path),
            "set_digest": self.image_set.digest,
            **size_of_parts(self.image_set.parts, self.image_set.num_classes),
        }


def session_of_sets(session: Session, paths: Sequence[Path], facts: Mapping[str, Any]) -> Session:
    """The session about the data set that the sets state, where the user stated none.

    facts: what the user stated about them. Raises UsageError where they state different ones or none is known, and
    DataError where one contradicts what the user stated.
    """
    found = {path: _read(session, path, facts) for path in paths}
    if session.states_data:
        return session
    names = {imported.dataset: path for path, imported in found.items()}
    if len(names) > 1:
        listed = ", ".join(f"{path.name} of {name or 'an unknown one'}" for name, path in names.items())
        raise UsageError(f"The sets are of different data sets: {listed}.\nAsk about one of them at a time.")
    for name, path in names.items():
        if not name:
            raise UsageError(f"{path} does not say which data set it stands for.\nName it with --dataset.")
        _check_known(name, path)
        return session.about(dataset=name)
    return session


def given_set(session: Session, path: Path, facts: Mapping[str, Any] | None = None) -> GivenSet:
    """The set of a file; one of another format is copied into the store, where workers find it.

    facts: what the user stated about it. Raises DataError for a file that cannot be read or that contradicts itself,
    UsageError where it cannot stand for the session's data (size, channels or classes differ), or --set names no key
    of a protocol.
    """
    from fyi_bench.formats.classes import in_order_of
    from fyi_bench.formats.guard import label_agreement

    imported = _read(session, path, facts or {})
    image_set, data = imported.image_set, session.data
    if image_set.shape != data.train.shape or image_set.num_classes != data.num_classes:
        raise UsageError(
            f"The set has {image_set.num_classes} classes of {image_set.shape} images, {data.name} has"
            f" {data.num_classes} of {data.train.shape}.\nName the right --dataset."
        )
    session.check_overrides([])
    ordered, note = in_order_of(image_set, data)
    guesses = [text for text in imported.guesses if not (imported.own and text.startswith("format "))]
    said = [f"guessed  {text}" for text in (*guesses, *note)]
    said += [f"warning  {text}" for text in imported.warnings]
    agreement = label_agreement(ordered, data.train)
    if agreement is not None and agreement.doubtful:
        ours = imported.own and "imported" not in ordered.provenance
        _doubt(session, f"{path}: {agreement.doubt}.", ours, said)
    place = Path(path)
    if not (imported.own and ordered is image_set and place.is_file()):
        place = kept_set(session, ordered)
    name = ordered.provenance.get("name") or ("" if "method" in ordered.provenance else Path(path).stem)
    return GivenSet(place.resolve(), ordered, said, str(name))


def repeated_sets(session: Session, paths: Sequence[Path], facts: Mapping[str, Any] | None = None) -> list[GivenSet]:
    """Sets that are repetitions of one another: of one method, and alike but for their seed, in the order of it.

    Whatever order they are named in, they come in the same one: what is trained on them is numbered by their place.
    Raises what `given_set` does, and UsageError for sets that are no repetitions.
    """
    givens = [given_set(session, path, facts) for path in paths]
    first, *others = [(path, _alike(given)) for path, given in zip(paths, givens, strict=True)]
    for path, own in others:
        if differs := [what for what, value in own.items() if value != first[1][what]]:
            raise UsageError(
                f"{first[0]} and {path} differ in {', '.join(differs)}: they are no repetitions of one another.\n"
                "Ask about each of them; `nas` and `continual` compare several."
            )
    if len({given.image_set.digest for given in givens}) < len(givens):
        raise UsageError("One of the sets is named twice.\nName each once.")
    return sorted(givens, key=_place)


def _place(given: GivenSet) -> tuple[int, str]:
    """Its seed, where the file states one as a number, and its digest."""
    seed = given.image_set.provenance.get("seed")
    return seed if isinstance(seed, int) else 0, given.image_set.digest


def _alike(given: GivenSet) -> dict[str, Any]:
    s = given.image_set
    made = {name: s.provenance.get(name) for name in ("recipe", "iterations")}
    return {
        "method": given.method,
        "flip": given.flip,
        "images": len(s),
        "classes": s.classes,
        "kind of labels": s.label_kind if s.labels.ndim == 2 else "hard",
        "bytes": s.nbytes,
        **made,
    }


def kept_set(session: Session, image_set: ImageSet) -> Path:
    """The set as a file in the store, where workers find it."""
    from fyi_bench.formats.export import export_set

    place = session.store.root / IMPORTED / image_set.digest / SET_FILE
    if not place.exists():
        export_set(image_set, place, "fyi-bench")
    return place


def _doubt(session: Session, what: str, made_here: bool, said: list[str]) -> None:
    """Stop at labels that do not fit; of a set made here it is only said, as its images may look like nothing."""
    if made_here:
        said.append(f"warning  {what}")
    else:
        hint = "State the order of its classes with --classes FILE, name its labels' file, or the right --dataset"
        session.doubt(what, hint)


def _read(session: Session, path: Path, facts: Mapping[str, Any]) -> Imported:
    """The file, read once a session; DataError where it contradicts the data set that was stated."""
    from fyi_bench.formats import load_set

    dataset = session.settings.dataset if session.states_data else None
    key = (str(path), tuple(sorted((name, str(value)) for name, value in facts.items())))
    if key not in session.given:
        imported = load_set(path, **facts, dataset=dataset, data_root=session.settings.data_root)
        if imported.contradiction:
            session.doubt(f"{path}: {imported.contradiction}.", "Leave --dataset out, or name the right one")
        session.given[key] = imported
    return session.given[key]


def _check_known(name: str, path: Path) -> None:
    from fyi_bench.data.entry import DATASETS

    if name.partition(":")[0] not in DATASETS or ":" in name:
        hint = "Name its folder with --dataset imagefolder:PATH." if ":" in name else "Name its data with --dataset."
        raise UsageError(f"{path} is of {name}, which is not found by that name alone.\n{hint}")
