"""`fyi-bench card`: one page on whether a condensed set is a faithful proxy for the real data, with a written rule.

A card computes nothing of its own but the symmetry score: it asks other tasks (evaluate, distill for the floors, nas),
whose runs it shares, and puts their answers together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fyi_bench.files import digest_of, write_text
from fyi_bench.run.plan import Plan, Records
from fyi_bench.run.types.unequalness import unequalness_run
from fyi_bench.session import Session
from fyi_bench.store.commands import record_path
from fyi_bench.store.record import build_record
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.base import TASKS, PlanOfParts, Record, Task, plan_of_parts
from fyi_bench.tasks.card.answer import measured
from fyi_bench.tasks.card.asked import Asked, CardOptions
from fyi_bench.tasks.card.judge import judge
from fyi_bench.tasks.card.words import arms_of_parts, card_words, fill_section, markdown_of, title_of
from fyi_bench.tasks.given import kept_set, session_of_sets

VERSION = 1  # of the keys of a card; fyi_bench/present/schemas/card.json says what they are


@dataclass(frozen=True, kw_only=True)
class PlanOfCard(PlanOfParts):
    """The plan of a card: `details` as of any plan of parts, what was asked, and the run of the symmetry score."""

    asked: Asked
    score: RunSpec | None


@TASKS.register("card")
class Card(Task[CardOptions]):
    """Ask the other tasks about the set and its floors and ceilings, and judge their answers by the written rule."""

    summary = "One page: is this set a faithful proxy for the real data?"
    Options = CardOptions
    heading = "Proxy card"
    examples: ClassVar[Sequence[str]] = (
        "fyi-bench card set.safetensors",
        "fyi-bench card res_DM_CIFAR10_ConvNet_10ipc.pt --without nas --html card.html",
        "fyi-bench card set.safetensors --only accuracy cross-arch --arch convnet3 vgg11",
    )

    def about(self, session: Session, options: CardOptions) -> Session:
        return session_of_sets(session, [options.path], options.facts)

    def ignored(self, options: CardOptions, given: Collection[str]) -> Mapping[str, str]:
        parts = {"ranked": ("nas",), "architectures": ("cross-arch",), "seeds": ("accuracy", "cross-arch", "continual")}
        return {
            name: f"it is about {' and '.join(of)}, which {'is' if len(of) == 1 else 'are'} left out"
            for name, of in parts.items()
            if not set(of) & set(options.parts)
        }

    def plan(self, session: Session, options: CardOptions, found: Records) -> Plan:
        asked = Asked.of(session, options)
        title = "\n".join([*asked.given.said, f"card of {options.path.name} · {session.data.name}"])
        whole, score = plan_of_parts(title, list(asked.questions.values()), found), _score(asked)
        return PlanOfCard(
            title,
            session.protocol("accuracy", asked.given.method).name,
            (*whole.runs, *([score] if score else [])),
            whole.tolerant,
            details=whole.details,
            asked=asked,
            score=score,
        )

    def answer(self, session: Session, options: CardOptions, plan: Plan, found: Records) -> Record:
        assert isinstance(plan, PlanOfCard)
        asked = plan.asked
        plans = {word: own for word, (_, own) in zip(asked.questions, plan.details, strict=True)}
        answers = {word: part.answer(plans[word], found) for word, part in asked.questions.items()}
        parts = measured(asked, answers, plans, plan.score, found)
        sources = [{key: one[key] for key in ("task", "digest", "protocol", "command")} for one in answers.values()]
        runs = sorted(run.digest for run in plan.runs)
        return build_record(
            "card",
            **session.facts(session.protocol("accuracy", asked.given.method)),
            seeds=[session.settings.seed],
            digest=digest_of(["card", asked.given.image_set.digest, options.parts, runs]),
            arms=[asked.given.entry],
            card_version=VERSION,
            images=len(asked.given.image_set),
            parts=parts,
            left_out=asked.left_out,
            **judge(parts),
            sources=sources,
        )

    def files(self, session: Session, plan: Plan, found: Records, record: Record) -> Mapping[str, Path]:
        from fyi_bench.present.report import report_html

        assert isinstance(plan, PlanOfCard)
        options, beside = plan.asked.options, record_path(session.store, record).with_suffix("")
        page = report_html([record], title_of(record), makers={self.name: self})
        return {
            "page": write_text(options.html or beside / "card.html", page),
            "markdown": write_text(options.markdown or beside / "card.md", markdown_of(record)),
        }

    def words(self, record: Mapping[str, Any]) -> str:
        return card_words(record)

    def numbers(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**record, "arms": arms_of_parts(record)}

    def section(self, record: Mapping[str, Any], section: Any, store: Any) -> None:
        fill_section(record, section, store)


def _score(asked: Asked) -> RunSpec | None:
    """The run that scores the set's symmetry, in the space of the real images, so that random ones compare."""
    if "symmetry" not in asked.options.parts:
        return None
    s, space = asked.given.image_set, asked.session.data.space
    path = asked.given.path
    if s.space != space and s.space.kind == "pixel":
        s = s.to_space(space)
        path = kept_set(asked.session, s)
    reference = {"digest": s.digest, "file": str(path)}
    return unequalness_run(reference, len(s), asked.session.settings.seed)
