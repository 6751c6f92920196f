"""`fyi-bench experts`: train the expert trajectories that MTT and FTD match, ahead of any set that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fyi_bench.errors import UsageError
from fyi_bench.run.types.distill import distill_cell
from fyi_bench.run.types.expert import TRAJECTORY_FILE, expert_cells
from fyi_bench.store.record import build_record
from fyi_bench.tasks.common import digest_of_cells

if TYPE_CHECKING:
    from fyi_bench.session import Session


def experts_job(session: Session, method: str = "mtt", ipc: int = 10, count: int | None = None) -> dict[str, Any]:
    """Train what is missing of the first `count` experts (default: as many as the recipe has), return the record.

    method: whose experts, 'mtt' or 'ftd'. ipc: whose recipe; it decides on ZCA and the model, and recipes that agree in
    these share their experts. Raises UsageError for a method without experts.
    """
    recipe = session.recipe(method, ipc)
    session.check_overrides([recipe])
    whole = distill_cell(session.data, method, "none", ipc, 0, recipe, precision=session.settings.precision)
    cells = expert_cells(whole.inputs, count)
    if not cells:
        raise UsageError(f"The method {method} matches no expert trajectories.\nName mtt or ftd.")
    space, epochs = whole.inputs["space"]["kind"], cells[0].inputs["expert"]["epochs"]
    title = f"{len(cells)} experts of {method} · {session.data.name} · {epochs} epochs · {space} images"
    session.announce(title, cells, recipe.label)
    records = session.compute([("training experts", cells)])
    found = [records[cell.digest] for cell in cells]
    files = [session.store.artefact("expert", cell.digest, TRAJECTORY_FILE) for cell in cells]
    arm = {
        "method": method,
        "flip": "none",
        "ipc": ipc,
        "experts": [str(path) for path in files],
        "cells": [cell.digest for cell in cells],
        "losses": [record["losses"] for record in found],
        "bytes": sum(path.stat().st_size for path in files),
        "expert_s": [record["wall_s"] for record in found],
    }
    return build_record(
        "experts",
        dataset=session.data.name,
        protocol=recipe.label,
        device=session.settings.device,
        precision=session.settings.precision,
        seeds=range(len(cells)),
        wall_s=session.wall_s(),
        digest=digest_of_cells("experts", cells),
        arms=[arm],
        data={"note": session.data.note, "train": session.data.train_digest},
        store=str(session.store.root),
    )
