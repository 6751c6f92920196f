"""A condensed set that comes as a file: read, checked against the data set, and kept as one of our own format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import UsageError
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.session import Session

if TYPE_CHECKING:
    from distill.image_set import ImageSet


@dataclass(frozen=True)
class GivenSet:
    """path: of the file in our own format. warnings: what is to be said of it."""

    path: Path
    image_set: ImageSet
    warnings: Sequence[str]

    @property
    def method(self) -> str:
        """The method that the file states, else 'file'."""
        return str(self.image_set.provenance.get("method", "file"))

    @property
    def flip(self) -> str:
        """The flip that the file states, else 'unknown'."""
        return str(self.image_set.provenance.get("flip", "unknown"))

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
            "ipc": self.image_set.ipc if self.image_set.decoder is None else self.image_set.provenance.get("ipc"),
            "set": str(self.path),
            "set_digest": self.image_set.digest,
            "set_bytes": self.image_set.nbytes,
        }


def given_set(session: Session, path: Path) -> GivenSet:
    """The set of a file; one of another format is copied into the store, where workers find it.

    Raises DataError for a file that cannot be read, UsageError where it cannot stand for the session's data (size,
    channels or classes differ), or --set names no key of a protocol.
    """
    from fyi_bench.formats import load_set, save_imported

    path = Path(path)
    own = path.suffix == ".safetensors"  # ours say themselves what they stand for
    imported = load_set(path) if own else load_set(path, dataset=session.settings.dataset)
    image_set, data = imported.image_set, session.data
    if image_set.shape != data.train.shape or image_set.num_classes != data.num_classes:
        raise UsageError(
            f"The set has {image_set.num_classes} classes of {image_set.shape} images, {data.name} has"
            f" {data.num_classes} of {data.train.shape}.\nName the right --dataset."
        )
    session.check_overrides([])
    if not own:
        path = session.store.root / "imported" / image_set.digest / SET_FILE
        if not path.exists():
            save_imported(imported, path)
    return GivenSet(path.resolve(), image_set, tuple(imported.warnings))
