"""What a figure of the paper is given, and the list of them: `figure('3', request)` writes one and says where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import DataError
from fyi_bench.registry import Registry

if TYPE_CHECKING:
    from downstream.protocol import Protocol
    from fyi_bench.data import RealDataset
    from fyi_bench.present.figures.style import Drawing
    from fyi_bench.present.missing import Missing
    from fyi_bench.store.spec import RunSpec
    from fyi_bench.store.store import Store


@dataclass(frozen=True)
class Effort:
    """How much a figure that measures something measures; the paper says none of it.

    counts: numbers of real images a class. networks: random networks; resamples: random choices of the images.
    draws: augmentations averaged for the DSA distance. model: architecture of the random networks.
    """

    counts: tuple[int, ...]
    networks: int
    resamples: int
    draws: int
    model: str


# by protocol; 'paper' follows the reference completion of what the paper leaves open
EFFORTS = {
    "paper": Effort((1, 2, 5, 10, 20, 50, 100, 200, 500, 1000), 20, 10, 3, "convnet"),
    "quick": Effort((1, 2, 5, 10, 20, 50, 100), 3, 2, 1, "convnet-w32"),
}


@dataclass(frozen=True)
class Request:
    """Where data and results are and how to measure.

    data(name): gives a real data set. folder: where the pictures go (default: `figures` in the store).
    distance: of figures 5 and A, 'dm' or 'own', that of the method whose sets they are.
    stop: asked between measurements, `check()` may raise. say(line): told what takes time.
    dataset, weights, annotations, precision, rules(task): what a user asked for of these, for the figures that take it.
    """

    store: Store
    data: Callable[[str], RealDataset]
    protocol: str = "quick"
    seed: int = 0
    device: str = "cpu"
    folder: Path | None = None
    effort: Effort | None = None
    distance: str = "dm"
    stop: Any = None
    say: Callable[[str], None] = field(default=lambda line: None)
    dataset: str = ""
    weights: Path | None = None
    annotations: Path | None = None
    precision: str = "fp32"
    rules: Callable[[str], Protocol] | None = None

    @property
    def measured(self) -> Effort:
        """The effort asked for, else that of the protocol; an unknown protocol measures as 'quick'."""
        return self.effort or EFFORTS.get(self.protocol.split("+")[0], EFFORTS["quick"])

    def check(self) -> None:
        """Deadline here if that was asked for."""
        if self.stop is not None:
            self.stop.check()


def nothing(asked: Any) -> Sequence[Any]:
    return ()


def by_seed(request: Request) -> Sequence[str]:
    """Of a figure that draws by a seed, and heeds no other option."""
    return ("seed",)


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper: what it shows, how it is drawn, and what it is drawn from.

    make(request): the drawing. Raises DataError where what it needs is not there.
    needs(protocol): commands whose results it is drawn from; none for a figure that measures real data itself.
    runs(request): runs that are computed for it and nothing else, before it is drawn.
    takes(request): which it heeds of the options `dataset`, `seed`, `overrides`, `precision`, `weights`, `annotations`.
    """

    title: str
    make: Callable[[Request], Drawing]
    needs: Callable[[str], Sequence[Missing]] = nothing
    runs: Callable[[Request], Sequence[RunSpec]] = nothing
    takes: Callable[[Request], Sequence[str]] = nothing


# name of a figure ('3', 'E') -> what it is
FIGURES: Registry[PaperFigure] = Registry(
    "figure", package="fyi_bench.present.figures", group="fyi_bench.figures", base=PaperFigure
)


def paper_figure(name: str) -> PaperFigure:
    """The figure of this name, in capitals or not. Raises UnknownNameError."""
    return FIGURES.get(name)


def figure(name: str, request: Request) -> list[Path]:
    """Draw a figure of the paper from our data and results; returns the paths of the PNG and the SVG.

    Raises UnknownNameError for a name that is none, DataError saying what is missing and which command gives it.
    """
    drawing = paper_figure(name).make(request)
    return drawing.write(request.folder or request.store.root / "figures")


def figure_needs(name: str, protocol: str) -> list[Missing]:
    """The commands that give what a figure is drawn from; empty where it measures real data itself."""
    return list(paper_figure(name).needs(protocol))


def lacking(what: str, needs: Sequence[Missing]) -> DataError:
    """The error of a figure without results, with the first command that helps."""
    more = f" (and {len(needs) - 1} more)" if len(needs) > 1 else ""
    return DataError(f"{what}.\nRun first: {needs[0].command}{more}")


def impossible(name: str, reason: str, instead: str) -> DataError:
    """The error of a figure that cannot be made from what was given."""
    title = FIGURES.get(name).title.lower()
    return DataError(f"Figure {name} of the paper ({title}) cannot be made: {reason}.\n{instead}")


def _drawn(request: Request) -> Drawing:
    raise impossible(
        "4", "it is a drawing of the method, there is nothing to measure in it",
        "Ours is docs/fyi.svg, shown in docs/architecture.md.",
    )  # fmt: skip


FIGURES.register("4", PaperFigure("The idea of FYI", _drawn))
