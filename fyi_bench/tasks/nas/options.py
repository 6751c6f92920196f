"""What `fyi-bench nas` is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fyi_bench.config import option
from fyi_bench.errors import UsageError
from fyi_bench.reading import SetFacts
from fyi_bench.tasks.common import DEFAULT_METHOD, IPC, METHOD, Arm, Comparison

HERDING = Arm("herding", "none")  # the coreset of real images that is not drawn by lot


@dataclass(frozen=True)
class NasOptions(SetFacts, Comparison):  # in this order `method` is the first of them
    """Which proxies are asked, about how many architectures, and what they are held against."""

    method: str | None = METHOD(None, help=f"Distillation method of the proxy set; default: {DEFAULT_METHOD}.")
    ipc: int = IPC(50)
    space: str = option("auto", "auto, auto:TIME, 720, a number, NAME:N of another space, or a file of names.")
    set_files: tuple[Path, ...] = option((), "Sets to rank on, instead of a method's.", flag="--set-file")
    names: tuple[str, ...] = option((), "What to call each --set-file.", flag="--name")
    reference: str = option("auto", "Real ranking. auto: a stored one that fits; train: anew; or its name or CSV.")
    reference_images: int | None = option(None, "Real images of the reference; 0: all.")
    test_images: int | None = option(None, "Test images; 0: all.")
    reference_epochs: int | None = option(None, "Epochs of the reference.")
    save_ranking: Path | None = option(None, "CSV of the real ranking.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.set_files and self.method is not None:
            raise UsageError("--set-file and --method contradict each other.\nGive one of them.")
        if self.names and len(self.names) != len(self.set_files):
            raise UsageError(
                f"{len(self.names)} --name for {len(self.set_files)} --set-file.\nGive each set one, in order."
            )

    @property
    def arms(self) -> list[Arm]:
        """Arms of the search: those of every comparison, and herding beside the floor."""
        found = super().arms
        return found if self.only or HERDING in found else [*found, HERDING]
