"""Sets on the way: loss (figures 6 and B), unequalness (5 and A) and distance to the mirror image (12) by iteration.

Losses come out of the sets' own files. What else is measured needs sets of several lengths of one run: every draw is
keyed by its iteration, so a run of 100 iterations is the beginning of one of 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from distill.recipes import recipe
from fyi_bench.errors import FyiBenchError
from fyi_bench.files import digest_of
from fyi_bench.present.figures import style
from fyi_bench.present.figures.grids import MIRRORED_DIGITS
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, by_seed, lacking, nothing
from fyi_bench.present.figures.sets import SetRun, by_iterations, paired_sets
from fyi_bench.present.figures.style import Drawing, draw, label_inches
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_label, is_number
from fyi_bench.store.record import read_record, write_sealed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

LOSS_CAVEAT = (
    "Losses of arms with and without FYI are not of one size: with FYI the mean runs over twice as many images, which "
    "lowers it by itself."
)
FEW_POINTS = 12  # so many are marked one by one
NUMERICS = 1  # raise it whenever the same set would give another score or distance
STAGES = (0.05, 0.25, 1.0)  # shares of a run's iterations at which figures 5, A and 12 look at it
OWN = "own"  # the distance of the method itself
_C10, _C100 = "cifar10", "cifar100"


@dataclass(frozen=True)
class Curve:
    """One line: the arm it belongs to (method, flip), iterations and values; values that are no numbers are gaps."""

    arm: Mapping[str, Any]
    x: Sequence[float]
    y: Sequence[float | str | None]

    @property
    def numbers(self) -> list[float]:
        """The values with NaN where there is none."""
        return [v if is_number(v) else float("nan") for v in self.y]


def loss_curve(provenance: Mapping[str, Any]) -> Curve | None:
    """The loss curve of a set from its provenance; None where there are fewer than two points."""
    values = provenance.get("loss_curve") or []
    if len(values) < 2:
        return None
    every = provenance.get("loss_every", 1)
    return Curve(provenance, [every * k for k in range(len(values))], values)


def curves_drawing(curves: Sequence[Curve], name: str, size: tuple[float, float], ylabel: str) -> Drawing:
    """Lines against iteration with their names at the right; logarithmic where positive values span much."""

    def paint(figure: Figure) -> None:
        bottom, top = style.frame(figure)
        left = 0.62 / size[0]
        right = 1 - label_inches(arm_label(curve.arm) for curve in curves) / size[0]
        paint_curves(figure.add_axes((left, bottom, right - left, top - bottom)), curves, ylabel)

    return draw(name, size, paint)


def paint_curves(axes: Axes, curves: Sequence[Curve], ylabel: str, level: float | None = None) -> None:
    """The lines of the curves into axes, with names at their ends, and a dotted one at the level."""
    ends = []
    for curve, line in zip(curves, style.lines_of(curve.arm for curve in curves), strict=True):
        y = curve.numbers
        marker: dict[str, Any] = {"marker": line.marker, "markersize": 4.0} if len(y) <= FEW_POINTS else {}
        axes.plot(curve.x, y, color=line.color, linestyle=line.dash, linewidth=1.5, **marker)
        finite = [v for v in y if is_number(v)]
        if finite:
            ends.append((finite[-1], arm_label(curve.arm), line.color))
    shown = [v for curve in curves for v in curve.numbers if is_number(v)]
    if level is not None:
        axes.axhline(level, color=style.NEUTRAL, linestyle=":", linewidth=1.2)
        shown.append(level)
    if shown and min(shown) > 0 and max(shown) > 10 * min(shown):
        style.logarithmic(axes.yaxis)
    else:
        axes.set_ylim(min(0.0, *shown, 0.0), 1.06 * max(0.0, *shown, 0.0) or 1.0)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.set_xlabel("iteration")
    axes.set_ylabel(ylabel)
    axes.margins(x=0.01)
    style.label_ends(axes, ends)


@dataclass(frozen=True)
class Setting:
    """One panel: a method on a data set at so many images a class."""

    method: str
    dataset: str
    ipc: int

    @property
    def title(self) -> str:
        """'DSA, cifar100, 10 IPC'."""
        return f"{self.method.upper()}, {self.dataset}, {self.ipc} IPC"


MAIN = tuple(Setting(method, _C100, ipc) for method in ("dsa", "dm") for ipc in (1, 10))
ALL = tuple(
    Setting(method, dataset, ipc)
    for method in ("dc", "dsa", "dm", "mtt")
    for dataset, ipc in ((_C10, 1), (_C10, 10), (_C10, 50), (_C100, 1), (_C100, 10))
)
DIGITS = (Setting("dsa", MIRRORED_DIGITS, 1), Setting("dsa", MIRRORED_DIGITS, 2))


@dataclass(frozen=True)
class _Quantity:
    """What is drawn against the iteration. curves(setting, request): lines of a panel and, dotted, a level beside them.

    needs(setting, protocol): commands that make the sets.
    """

    title: str
    ylabel: str
    caption: Callable[[Request], str]
    curves: Callable[[Setting, Request], tuple[list[Curve], float | None]]
    needs: Callable[[Setting, str], list[Missing]]


def _drawing(name: str, quantity: _Quantity, settings: Sequence[Setting], request: Request) -> Drawing:
    """A panel for each setting that has sets; those that have none are named in the caption."""
    found = {setting: quantity.curves(setting, request) for setting in settings}
    shown = {setting: curves for setting, curves in found.items() if curves[0]}
    if not shown:
        wanted = [one for setting in settings for one in quantity.needs(setting, request.protocol)]
        raise lacking(f"The store {request.store.root} has no set for figure {name}", wanted)
    absent = "; ".join(setting.title for setting in settings if setting not in shown)
    columns = min(len(shown), 3 if len(shown) > 4 else 2)
    size = (3.4 * columns + 0.4, 2.5 * -(-len(shown) // columns) + 0.85)
    names = label_inches(arm_label(curve.arm) for curves, _ in shown.values() for curve in curves)
    room = style.Room(0.6 / size[0], 1 - names / size[0], 0.22 / size[1], 0.55, (names + 0.6) / 2.2)
    head = quantity.title, quantity.caption(request) + (f"\nnot run: {absent}" if absent else "")

    def paint(figure: Figure) -> None:
        axes = style.panels(figure, len(shown), columns, room, head)
        for one, (setting, (curves, level)) in zip(axes, shown.items(), strict=True):
            paint_curves(one, curves, quantity.ylabel, level)
            one.set_title(setting.title)

    return draw(f"figure-{name}", size, paint)


def _losses(setting: Setting, request: Request) -> tuple[list[Curve], None]:
    """The method's own loss without and with FYI."""
    pair = paired_sets(request.store, setting.dataset, setting.method, setting.ipc)
    curves = [loss_curve(pair[flip].load().provenance) for flip in ("none", "fyi") if flip in pair]
    return [curve for curve in curves if curve is not None], None


def _scores(setting: Setting, request: Request) -> tuple[list[Curve], None]:
    """Unequalness of the set itself (not of the set with its copies, which is 0)."""
    runs = by_iterations(request.store, setting.dataset, setting.method, setting.ipc)
    return _curves(setting, runs, lambda run: _score(run, request)), None


def _distances(setting: Setting, request: Request) -> tuple[list[Curve], float | None]:
    """Mean ‖f(s) − f(mirror of s)‖ under a network trained on the real images, and that of real images."""
    runs = by_iterations(request.store, setting.dataset, setting.method, setting.ipc)
    if not runs:
        return [], None
    network, real = _trained(setting.dataset, request)
    return _curves(setting, runs, lambda run: _distance(run, network)), real


def _curves(setting: Setting, runs: dict[str, dict[int, SetRun]], value: Callable[[SetRun], float]) -> list[Curve]:
    return [
        Curve({"method": setting.method, "flip": flip}, list(points), [value(run) for run in points.values()])
        for flip, points in runs.items()
        if flip in ("none", "fyi")
    ]


def _score(run: SetRun, request: Request) -> float:
    """Mean unequalness of a set, kept in the store."""
    from distill.decode import decoded
    from distill.fyi import set_unequalness

    networks, distance = request.measured.networks, _distance_of(run.inputs["method"], request)
    facts = {"figure": "set-score", "numerics": NUMERICS, "cell": run.digest, "networks": networks}
    facts |= {} if distance == "dm" else {"distance": distance}  # scores measured before had no other
    path = request.store.root / "figures" / f"set-score-{digest_of({**facts, 'seed': request.seed})}.json"
    if path.exists():
        return read_record(path)["mean"]
    request.check()
    request.say(f"scoring {run.inputs['method']} {run.inputs['flip']} after {run.iterations} iterations …")
    found = set_unequalness(
        decoded(run.load()), request.seed, networks=networks, distance=distance, device=request.device
    )
    write_sealed(path, {**facts, "seed": request.seed, "mean": found["mean"], "std": found["std"]})
    return found["mean"]


def _distance_of(method: str, request: Request) -> str:
    """The distance a method's sets are scored with; that of DM for a method whose own eq. 5 does not have."""
    from distill.fyi import UNEQUALNESS

    return method if request.distance == OWN and method in UNEQUALNESS else "dm"


def _score_caption(request: Request) -> str:
    of = "that each method matches by, on scales of their own," if request.distance == OWN else "of DM,"
    return f"eq. 5 with the distance {of} {request.measured.networks} random networks, mean over classes"


_REAL_IMAGES = 2000  # of the real set, enough for a network that reads digits


def _trained(dataset: str, request: Request) -> tuple[nn.Module, float]:
    """A network trained on real images, and the mean distance of real images to their mirror images under it."""
    import torch

    from distill.fyi import mirror_distance
    from downstream.protocol import protocol
    from downstream.training import Conditions, new_network, train
    from fyi_bench import rng

    data = request.data(dataset)
    order = torch.randperm(len(data.train), generator=rng.stream(request.seed, "figure-real"))[:_REAL_IMAGES]
    real = data.train.select(order).to_space(data.space)
    rules = protocol("quick", "accuracy").with_overrides({"epochs": "10", "eval_augment": "none"})
    request.say(f"training a network on {len(real)} real images of {dataset} …")
    network = new_network(rules.eval_model, real, request.seed)
    train(network, real, rules, request.seed, Conditions(request.device))
    network.eval()
    return network, float(mirror_distance(real.images[:500].to(request.device), network))


def _distance(run: SetRun, network: nn.Module) -> float:
    from distill.fyi import mirror_distance

    device = next(network.parameters()).device
    return float(mirror_distance(run.load().images.to(device), network))


def _final(setting: Setting, protocol: str) -> list[Missing]:
    return [_set(setting, protocol)]


def _stages(setting: Setting, protocol: str) -> list[Missing]:
    """Runs of several lengths; the last is the whole one, as the recipe has it."""
    whole = _iterations(setting, protocol)
    lengths = [max(1, round(share * whole)) for share in STAGES if share < 1 and whole]
    return list(dict.fromkeys(_set(setting, protocol, length) for length in (*lengths, None)))


def _set(setting: Setting, protocol: str, iterations: int | None = None) -> Missing:
    options = (() if iterations is None else ("--set", f"iterations={iterations}")) + ("--arch", "none")
    place = setting.method, "fyi", setting.dataset, setting.ipc
    return Missing("distill", *place, (), protocol, (setting.title,), options)


def _iterations(setting: Setting, protocol: str) -> int | None:
    try:
        return recipe(setting.method, setting.dataset, setting.ipc, protocol.split("+")[0]).values["iterations"]
    except FyiBenchError:
        return None


LOSS = _Quantity("Loss while condensing", "loss", lambda request: LOSS_CAVEAT, _losses, _final)
SCORE = _Quantity(
    "Unequalness of the condensed set", "unequalness",
    _score_caption, _scores, _stages,
)  # fmt: skip
DISTANCE = _Quantity(
    "Distance of an image to its mirror image", "distance",
    lambda request: "mean Euclidean distance of features before the classifier · dotted: real images",
    _distances, _stages,
)  # fmt: skip


def _register(name: str, title: str, quantity: _Quantity, settings: Sequence[Setting]) -> None:
    def needs(protocol: str) -> list[Missing]:
        return [one for setting in settings for one in quantity.needs(setting, protocol)]

    FIGURES.register(
        name,
        PaperFigure(
            title, partial(_drawing, name, quantity, settings), needs, takes=nothing if quantity is LOSS else by_seed
        ),
    )


_register("5", "Unequalness while condensing", SCORE, MAIN)
_register("A", "Unequalness while condensing, every method", SCORE, ALL)
_register("6", "Loss while condensing", LOSS, MAIN)
_register("B", "Loss while condensing, every method", LOSS, ALL)
_register("12", "Distance of digits to their mirror images while condensing", DISTANCE, DIGITS)
