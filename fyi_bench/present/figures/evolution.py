"""Sets on the way: loss (figures 6 and B), unequalness (5 and A) and distance to the mirror image (12) by iteration.

Losses come out of the sets' own files. What else is measured needs sets of several lengths of one run: every draw is
keyed by its iteration, so a run of 100 iterations is the beginning of one of 1000.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fyi_bench.errors import FyiBenchError
from fyi_bench.files import digest_of, write_json
from fyi_bench.present.figures.grids import MIRRORED_DIGITS
from fyi_bench.present.figures.request import FIGURES, PaperFigure, Request, lacking
from fyi_bench.present.figures.sets import SetRun, by_iterations, paired_sets
from fyi_bench.present.figures.style import NEUTRAL, Drawing, draw, frame, label_inches
from fyi_bench.present.figures.training import LOSS_CAVEAT, Curve, loss_curve, paint_curves
from fyi_bench.present.missing import Missing
from fyi_bench.present.words import arm_label
from fyi_bench.store.record import read_record

if TYPE_CHECKING:
    from torch import nn

NUMERICS = 1  # raise it whenever the same set would give another score or distance
STAGES = (0.05, 0.25, 1.0)  # shares of a run's iterations at which figures 5, A and 12 look at it
_C10, _C100 = "cifar10", "cifar100"


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


def loss_figure(name: str, settings: Sequence[Setting], request: Request) -> Drawing:
    """A panel a setting: the method's own loss without and with FYI."""
    found = []
    for setting in settings:
        pair = paired_sets(request.store, setting.dataset, setting.method, setting.ipc)
        curves = [loss_curve(pair[flip].load().provenance) for flip in ("none", "fyi") if flip in pair]
        found.append((setting, [curve for curve in curves if curve is not None], None))
    return _panels(name, "Loss while condensing", "loss", found, LOSS_CAVEAT, request, _needs_final)


def score_figure(name: str, settings: Sequence[Setting], request: Request) -> Drawing:
    """A panel a setting: unequalness of the set itself (not of the set with its copies, which is 0)."""
    found = []
    for setting in settings:
        runs = by_iterations(request.store, setting.dataset, setting.method, setting.ipc)
        found.append((setting, _curves(setting, runs, lambda run: _score(run, request)), None))
    caption = f"eq. 5 with the distance of DM, {request.measured.networks} random networks, mean over classes"
    return _panels(name, "Unequalness of the condensed set", "unequalness", found, caption, request, _needs_stages)


def distance_figure(name: str, settings: Sequence[Setting], request: Request) -> Drawing:
    """A panel a setting: mean ‖f(s) − f(mirror of s)‖ under a network trained on the real images."""
    found = []
    for setting in settings:
        runs = by_iterations(request.store, setting.dataset, setting.method, setting.ipc)
        if runs:
            network, real = _trained(setting.dataset, request)
            found.append((setting, _curves(setting, runs, lambda run, f=network: _distance(run, f)), real))
        else:
            found.append((setting, [], None))
    caption = "mean Euclidean distance of features before the classifier · dotted: real images"
    return _panels(name, "Distance of an image to its mirror image", "distance", found, caption, request, _needs_stages)


def _curves(setting: Setting, runs: dict[str, dict[int, SetRun]], value: Callable[[SetRun], float]) -> list[Curve]:
    return [
        Curve({"method": setting.method, "flip": flip}, list(points), [value(run) for run in points.values()])
        for flip, points in runs.items()
        if flip in ("none", "fyi")
    ]


Panel = tuple[Setting, list[Curve], float | None]


def _panels(
    name: str, title: str, ylabel: str, found: Sequence[Panel], caption: str, request: Request, needs: Callable
) -> Drawing:
    """The settings that have curves, a panel each; those that have none are named in the caption."""
    shown = [panel for panel in found if panel[1]]
    if not shown:
        wanted = [one for setting, _, _ in found for one in needs([setting], request.protocol)]
        raise lacking(f"The store {request.store.root} has no set for figure {name}", wanted)
    absent = [setting.title for setting, curves, _ in found if not curves]
    columns = min(len(shown), 3 if len(shown) > 4 else 2)
    lines = -(-len(shown) // columns)
    size = (3.4 * columns + 0.4, 2.5 * lines + 0.85)
    text = caption + (f"\nnot run: {'; '.join(absent)}" if absent else "")

    def paint(figure: Any) -> None:
        bottom, top = frame(figure, title, text)
        grid = figure.subplots(lines, columns, squeeze=False)
        room = label_inches(arm_label(curve.arm) for _, curves, _ in shown for curve in curves)
        figure.subplots_adjust(0.6 / size[0], bottom, 1 - room / size[0], top - 0.22 / size[1], hspace=0.55,
                               wspace=(room + 0.6) / 2.2)  # fmt: skip
        for axes, (setting, curves, reference) in zip(grid.flat, shown, strict=False):
            if reference is not None:
                axes.axhline(reference, color=NEUTRAL, linestyle=":", linewidth=1.2)
            paint_curves(axes, curves, ylabel)
            axes.set_title(setting.title)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)

    return draw(f"figure-{name}", size, paint)


def _score(run: SetRun, request: Request) -> float:
    """Mean unequalness of a set, kept in the store."""
    from distill.decode import decoded
    from distill.fyi import set_unequalness

    networks = request.measured.networks
    facts = {"figure": "set-score", "numerics": NUMERICS, "cell": run.digest, "networks": networks}
    path = request.store.root / "figures" / f"set-score-{digest_of({**facts, 'seed': request.seed})}.json"
    if path.exists():
        return read_record(path)["mean"]
    request.check()
    request.say(f"scoring {run.inputs['method']} {run.inputs['flip']} after {run.iterations} iterations …")
    found = set_unequalness(decoded(run.load()), request.seed, networks=networks, device=request.device)
    write_json(path, {**facts, "seed": request.seed, "mean": found["mean"], "std": found["std"]})
    return found["mean"]


_REAL_IMAGES = 2000  # of the real set, enough for a network that reads digits


def _trained(dataset: str, request: Request) -> tuple[nn.Module, float]:
    """A network trained on real images, and the mean distance of real images to their mirror images under it."""
    import torch

    from distill.fyi import mirror_distance
    from downstream.protocol import protocol
    from downstream.training import new_network, train
    from fyi_bench import rng

    data = request.data(dataset)
    order = torch.randperm(len(data.train), generator=rng.stream(request.seed, "figure-real"))[:_REAL_IMAGES]
    real = data.train.select(order).to_space(data.space)
    rules = protocol("quick", "accuracy").with_overrides({"epochs": "10", "eval_augment": "none"})
    request.say(f"training a network on {len(real)} real images of {dataset} …")
    network = new_network(rules.eval_model, real, request.seed)
    train(network, real, rules, request.seed, device=request.device)
    network.eval()
    return network, float(mirror_distance(real.images[:500].to(request.device), network))


def _distance(run: SetRun, network: nn.Module) -> float:
    from distill.fyi import mirror_distance

    device = next(network.parameters()).device
    return float(mirror_distance(run.load().images.to(device), network))


def _needs_final(settings: Sequence[Setting], protocol: str) -> list[Missing]:
    return [
        Missing("distill", s.method, "fyi", s.dataset, s.ipc, (), protocol, (s.title,), ("--arch", "none"))
        for s in settings
    ]


def _needs_stages(settings: Sequence[Setting], protocol: str) -> list[Missing]:
    """Runs of several lengths; the last is the whole one, as the recipe has it."""
    found = []
    for s in settings:
        whole = _iterations(s, protocol)
        for share in STAGES:
            length = () if share == 1 or not whole else ("--set", f"iterations={max(1, round(share * whole))}")
            options = (*length, "--arch", "none")
            found.append(Missing("distill", s.method, "fyi", s.dataset, s.ipc, (), protocol, (s.title,), options))
    return list(dict.fromkeys(found))


def _iterations(setting: Setting, protocol: str) -> int | None:
    from distill.recipes import recipe

    try:
        return recipe(setting.method, setting.dataset, setting.ipc, protocol.split("+")[0]).values["iterations"]
    except FyiBenchError:
        return None


def _register(name: str, title: str, make: Callable, settings: Sequence[Setting], needs: Callable) -> None:
    FIGURES.register(
        name,
        PaperFigure(
            name, title, lambda request: make(name, settings, request), lambda protocol: needs(settings, protocol)
        ),
    )


_register("5", "Unequalness while condensing", score_figure, MAIN, _needs_stages)
_register("A", "Unequalness while condensing, every method", score_figure, ALL, _needs_stages)
_register("6", "Loss while condensing", loss_figure, MAIN, _needs_final)
_register("B", "Loss while condensing, every method", loss_figure, ALL, _needs_final)
_register("12", "Distance of digits to their mirror images while condensing", distance_figure, DIGITS, _needs_stages)
