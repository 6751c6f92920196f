"""Random real images in as many bytes as a set has, uint8 pixels and JPEG files, beside sets that are made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from downstream.protocol import FLOOR, Protocol
from fyi_bench.run.plan import Records
from fyi_bench.run.types.accuracy import accuracy_run
from fyi_bench.run.types.floor import FORMS, floor_run, likely_images
from fyi_bench.session import Session
from fyi_bench.store.spec import RunSpec
from fyi_bench.tasks.common import NETWORKS_OF_A_SET, Arm, repeated, size_of_draw, summary_of_sets

IN_BYTES = [form for form in FORMS if form != "images"]


@dataclass(frozen=True)
class ByteFloors:
    """Draws by form and seed, and the networks trained on each, by form, architecture and seed."""

    classes: int
    draws: Mapping[tuple[str, int], RunSpec]
    tests: Mapping[tuple[str, str, int], Sequence[RunSpec]]

    @classmethod
    def of(cls, session: Session, protocol: Protocol, names: Sequence[str], size: int) -> ByteFloors:
        """Plan the floors of a set of `size` bytes: as many draws and networks as the floor of equal number has."""
        data, [often] = session.data, repeated(session, protocol, [Arm(FLOOR, "none")], protocol.sets).values()
        draws = {(form, seed): floor_run(data, form, size, seed) for form in IN_BYTES for seed in often.seeds}
        tests = {
            (form, name, seed): [
                accuracy_run(
                    data, {"cell": draw.digest, "kind": "floor"}, likely_images(data, form, size), protocol,
                    NETWORKS_OF_A_SET * seed + net, name, session.settings.precision,
                )
                for net in range(often.networks if name == names[0] else often.elsewhere)
            ]
            for (form, seed), draw in draws.items()
            for name in names
        }  # fmt: skip
        return cls(data.num_classes, draws, tests)

    @property
    def runs(self) -> list[RunSpec]:
        """Draws, then networks."""
        return [*self.draws.values(), *(run for runs in self.tests.values() for run in runs)]

    def entries(self, found: Records) -> list[dict[str, Any]]:
        """What a record says of each form."""
        return [self._entry(form, found) for form in IN_BYTES]

    def _entry(self, form: str, found: Records) -> dict[str, Any]:
        drawn = [found[run.digest] for (of, _), run in self.draws.items() if of == form]
        values: dict[str, list[float]] = {}
        owners: dict[str, list[int]] = {}
        for (of, name, seed), runs in self.tests.items():
            if of == form:
                values.setdefault(name, []).extend(found[run.digest]["value"] for run in runs)
                owners.setdefault(name, []).extend([seed] * len(runs))
        return {
            "form": form,
            "images": [one["images"] for one in drawn],
            **size_of_draw(drawn[0], self.classes),
            "architectures": [{"name": name, **summary_of_sets(values[name], owners[name])} for name in values],
        }
