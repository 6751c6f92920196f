"""`fyi-bench evaluate`: accuracy of networks trained on a set that is a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.image_set import ImageSet
from fyi_bench.errors import UsageError
from fyi_bench.formats import load_set, save_imported
from fyi_bench.run.types.accuracy import accuracy_cell
from fyi_bench.run.worker import SET_FILE
from fyi_bench.session import Session
from fyi_bench.store.record import build_record
from fyi_bench.tasks.common import digest_of_cells, summary

if TYPE_CHECKING:
    from downstream.protocol import Protocol


def evaluate_job(session: Session, path: str | Path, architectures: Sequence[str] = ()) -> dict[str, Any]:
    """Train `nets` networks of each architecture on the set, test each once, return the record."""
    path, image_set = own_file(session, Path(path))
    check_fits(image_set, session.data)
    session.check_overrides([])
    method = str(image_set.provenance.get("method", "file"))
    protocol = session.protocol("accuracy", method)
    _say_what_a_file_lacks(session, protocol, path)
    names = list(architectures) or [protocol.eval_model]
    reference = {"digest": image_set.digest, "file": str(path)}
    cells = {
        (name, net): accuracy_cell(
            session.data, reference, len(image_set), protocol, session.settings.seed + net, name,
            session.settings.precision,
        )
        for name in names
        for net in range(protocol.nets)
    }  # fmt: skip
    records = session.announce_and_compute(
        f"evaluate {path.name} · {session.data.name}", protocol.name, [("evaluating", list(cells.values()))]
    )
    entries = [_entry(name, [records[cells[name, net].digest] for net in range(protocol.nets)]) for name in names]
    arm = {
        "method": method,
        "flip": str(image_set.provenance.get("flip", "unknown")),
        "ipc": image_set.ipc,
        "set": str(path),
        "set_digest": image_set.digest,
        "set_bytes": image_set.nbytes,
        "architectures": entries,
    }
    return build_record(
        "accuracy",
        **session.facts(protocol),
        seeds=[session.settings.seed + net for net in range(protocol.nets)],
        digest=digest_of_cells("accuracy", cells.values()),
        arms=[arm],
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )


def _entry(name: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies of one architecture, and what a network cost: seconds of training and testing, MiB at most."""
    return {
        "name": name,
        **summary([record["value"] for record in records]),
        "seconds": [record["wall_s"] for record in records],
        "peak_memory_mib": max(record["peak_memory_mib"] for record in records),
    }


def _say_what_a_file_lacks(session: Session, protocol: Protocol, path: Path) -> None:
    """A file is one set: nothing is picked among checkpoints, and there are no images behind an average."""
    if protocol.warm == "raw":
        raise UsageError(
            f"{protocol.name} trains on the images behind the average first, and {path.name} does not have them.\n"
            f"Run: fyi-bench distill --method ftd --protocol {protocol.name}, or evaluate with legacy-mtt."
        )
    if protocol.checkpoints_every:
        session.say(f"{protocol.name} picks the best of several checkpoints; this file is taken as the only one")


def own_file(session: Session, path: Path) -> tuple[Path, ImageSet]:
    """The set as a file of our own format: itself, or, of another format, a copy in the store."""
    own = path.suffix == ".safetensors"  # ours say themselves what they stand for
    imported = load_set(path) if own else load_set(path, dataset=session.settings.dataset)
    for line in imported.warnings:
        session.say(line)
    if own:
        return path.resolve(), imported.image_set
    place = session.store.root / "imported" / imported.image_set.digest / SET_FILE
    return save_imported(imported, place).resolve(), imported.image_set


def check_fits(image_set: ImageSet, data: Any) -> None:
    """Raise UsageError when a set cannot stand for this data set (size, channels or classes differ)."""
    if image_set.shape != data.train.shape or image_set.num_classes != data.num_classes:
        raise UsageError(
            f"The set has {image_set.num_classes} classes of {image_set.shape} images, {data.name} has"
            f" {data.num_classes} of {data.train.shape}.\nName the right --dataset."
        )
