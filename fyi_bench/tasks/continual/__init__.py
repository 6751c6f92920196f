"""`fyi-bench continual`: continual learning from condensed memory, and what it is held against."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.config import Settings
from fyi_bench.present.figures.continual import continual_drawing, continual_figure, growth_picture, step_map
from fyi_bench.present.words import count_words
from fyi_bench.reading import NO_FILE, SetFacts
from fyi_bench.run.estimate import work_of
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.run_type import SET_FILE
from fyi_bench.run.types.continual import Order
from fyi_bench.run.types.expert import prerequisites
from fyi_bench.session import Session
from fyi_bench.store.commands import writing
from fyi_bench.store.record import build_record
from fyi_bench.tasks import words
from fyi_bench.tasks.base import TASKS, Record, Task
from fyi_bench.tasks.common import NOT_MADE, digest_of_runs, recipes_of, seeds_of
from fyi_bench.tasks.continual.answer import arm_entry, differences, order_words, paired, paired_lines, summary_table
from fyi_bench.tasks.continual.options import ContinualOptions, orders_of
from fyi_bench.tasks.continual.sides import Planner, Runs, Side, files_of, sides_of, stated_steps
from fyi_bench.tasks.given import GivenSet, session_of_sets

# work (floating-point operations) up to which several class orders are the default under `quick`: about nine minutes
# of two slow CPU cores, so that it does not depend on the machine what is planned
ORDERS_WITHIN = 1e14


@dataclass(frozen=True)
class _Details:
    seeds: Sequence[int]
    orders: Mapping[int, Order]
    sides: Mapping[Side, Runs]
    main: list[str]  # name and flip of the memory in question


@TASKS.register("continual")
class Continual(Task[ContinualOptions]):
    """Distil each step's classes, rehearse after each step, and hold the memory against others and against bounds.

    Class orders are those of seeds seed, seed + 1, … (numpy's legacy permutation, as published); the set of a step is
    distilled with the order's seed. Where there are fewer orders than draws of random images, each order has several.
    """

    summary = "Continual learning from condensed memory (Avalanche), against real images and bounds."
    Options = ContinualOptions
    defaults: ClassVar[Mapping[str, Any]] = {"dataset": "cifar100"}
    heading = "Continual learning"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench continual --steps 10 --method dsa --fyi  # 9 min",
        "fyi-bench continual --base 50 --steps 10 --order icarl --method dm --fyi  # 11 min",
        "fyi-bench continual --set-file cl_DM_CIFAR100_ConvNet_20ipc_5steps_seed0.pt --against random er joint",
    )

    def about(self, session: Session, options: ContinualOptions) -> Session:
        if not options.sets:
            return session
        if "dataset" not in session.settings.given and session.settings.dataset == self.defaults["dataset"]:
            session = session.about(dataset=Settings.dataset)  # the sets say it
        return session_of_sets(session, options.sets, options.facts)

    def ignored(self, options: ContinualOptions, given: Collection[str]) -> Mapping[str, str]:
        found = {} if options.sets else dict.fromkeys([*(f.name for f in fields(SetFacts)), "names"], NO_FILE)
        if options.step_sizes:
            found["steps"] = "--step-sizes say how many there are"
        if not options.methods:
            found |= dict.fromkeys(("fyi", "flip"), NOT_MADE)
            if options.against is not None:
                found["only"] = "--against says what is compared"
        return found

    def plan(self, session: Session, options: ContinualOptions, found: Records) -> Plan:
        if options.methods:
            recipes_of(session, options.methods, options.ipc)  # an unknown name is told before data is read
        protocol = session.protocol("continual")
        files = files_of(session, options)
        seeds = seeds_of(session, protocol.orders)
        planner = Planner(session, options, orders_of(session, options, seeds, stated_steps(files)))
        plan = self._plan(planner, found, files)
        if session.settings.seeds is None and session.settings.protocol == "quick":
            first = dict(list(planner.orders.items())[:1])
            for fewer in (replace(planner, few=True), replace(planner, orders=first)):
                if work_of(plan.runs, session.data) > ORDERS_WITHIN:
                    plan = self._plan(fewer, found, files)
        return plan

    def _plan(self, planner: Planner, found: Records, files: Sequence[Sequence[GivenSet]]) -> Plan:
        session, options, orders = planner.session, planner.options, planner.orders
        sides, waiting = sides_of(planner, files, found)
        runs = {side: planner.runs(side) for side in sides}
        made = [run for own in runs.values() for run in own.sets.values()]
        # the longest runs first, so that no worker is left with one at the end
        tests = [run for own in runs.values() for rows in own.tests.values() for run in rows]
        tests.sort(key=lambda run: -run.inputs.get("step", 10**6))
        steps = len(next(iter(orders.values())).steps)
        said = [line for memory in files for one in memory for line in one.said]
        title = (
            f"continual {', '.join(side.words for side in sides)} · {session.data.name} · {count_words(steps, 'step')}"
            f" · {order_words([order.steps.order for order in orders.values()])} · "
            f"{words.images_words({'ipc': sides[0].ipc})}"
        )
        if planner.few and (one := [side.words for side in sides if side.costly]):
            said.append(f"on the first class order alone: {', '.join(one)} (--seeds {len(orders)} asks for all)")
        asked = session.protocol("continual").orders
        if session.settings.seeds is None and len(orders) < asked:
            said.append(f"one class order of {asked}, which gives no intervals (--seeds {asked} asks for all)")
        if waiting:
            said.append("real images in as many bytes follow once the sets are made: their bytes are not known before")
        every = tuple({run.digest: run for run in (*prerequisites(made), *made, *tests)}.values())
        return Plan(
            "\n".join([*said, title]), session.protocol("continual").name, every, open=waiting,
            details=_Details(list(orders), orders, runs, _main(options, sides)),
        )  # fmt: skip

    def answer(self, session: Session, options: ContinualOptions, plan: Plan, found: Records) -> Record:
        d: _Details = plan.details
        protocol, orders = session.protocol("continual"), list(d.orders.values())
        main = next(side for side in d.sides if [side.name, side.arm.flip] == d.main)
        return build_record(
            "continual",
            **session.facts(protocol),
            seeds=d.seeds,
            digest=digest_of_runs("continual", [run for own in d.sides.values() for run in own.all]),
            steps=len(orders[0].steps),
            step_sizes=list(orders[0].steps.sizes),
            scenario=orders[0].steps.kind,
            order=options.order or ("sets" if orders[0].named else "paper"),
            class_orders=[list(order.steps.order) for order in orders],
            class_names=list(session.data.class_names),
            networks=protocol.nets,
            arms=[arm_entry(side, runs, found) for side, runs in d.sides.items()],
            **differences(d.sides, len(orders[0].steps), found),
            paired=paired(main, d.sides, found),
        )

    def files(self, session: Session, plan: Plan, found: Records, record: Record) -> Mapping[str, Path]:
        """The memory in question as it grows, of the first class order."""
        from distill.image_set import ImageSet, concatenate

        d: _Details = plan.details
        main = next(side for side in d.sides if [side.name, side.arm.flip] == d.main)
        owner = next(iter(d.sides[main].tests))[0]
        own = [run for (whose, _), run in d.sides[main].sets.items() if whose == owner]
        sets = [ImageSet.load(session.store.artefact(run.kind, run.digest, SET_FILE)) for run in own]
        if main.files:
            steps = d.orders[owner[0]].steps
            whole = concatenate([one.image_set for one in main.files])
            sets = [whole.of_classes(classes) for classes in steps.classes]
        with writing(session.store) as folder:
            return {"memory": growth_picture(sets, folder / f"continual-{record['digest']}" / "memory.png")}

    def words(self, record: Mapping[str, Any]) -> str:
        header, rows = summary_table(record)
        orders = order_words(record["class_orders"])
        what = f"{count_words(record['steps'], 'step')} · {words.images_words(record['arms'][0])} · {orders}"
        lines = words.lines_of(record, what, header, rows)
        return "\n".join([*lines, *paired_lines(record)]).rstrip("\n")

    def plots(self, record: Mapping[str, Any], folder: Path) -> list[Path]:
        return continual_figure(record, folder)

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        several = any(len(row["values"]) > 1 for arm in record["arms"] for row in arm["accuracy"])
        section.figure(
            "Accuracy on all classes seen so far, %",
            "Band: ± one standard deviation over runs." if several else "One run a step.",
            "curves",
            lambda name, width: continual_drawing(record, name, (width, 3.2 if width > 5 else 2.9), bare=True),
        )
        if any("per_experience" in arm for arm in record["arms"]):
            section.figure(
                "What is left of each step, %",
                "Rows: after each step; columns: test images of the classes that each step brought.",
                "map",
                lambda name, width: step_map(record, name, (width, 2.6), bare=True),
            )
        header, rows = summary_table(record, ", %")
        runs = count_words(len(record["class_orders"]), "class order")
        caption = f"Mean ± standard deviation over {runs}." if several else "One run a step."
        section.table(caption, header, rows, marked=len(rows) - record["steps"])
        section.notes += [*words.spread_lines(record), *paired_lines(record)]
        section.sets(record, store)


def _main(options: ContinualOptions, sides: Sequence[Side]) -> list[str]:
    """Name and flip of the memory in question: of the method asked for, else of the first set."""
    main = sides[len(options.methods) - 1 if options.methods else 0]
    return [main.name, main.arm.flip]
