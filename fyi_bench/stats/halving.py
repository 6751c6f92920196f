"""Successive halving with a proxy as its first rung: what such a search finds, and what of the real side it trains.

Every architecture is trained on the proxy. Those that Optuna's pruner lets pass, about the best of every `FACTOR`, are
trained on the real data, and the best of these by that is what the search finds. Architectures come one after another
in an order drawn by lot, and the pruner sees those before alone, as it does in a real search: so the answer is the
mean over several orders. Nothing is trained for it: both accuracies of every architecture are known already.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fyi_bench.rng import numpy_stream
from fyi_bench.stats.intervals import mean_interval
from fyi_bench.stats.rankings import scores as scored

FACTOR = 3  # of so many architectures one passes a rung
ORDERS = 10
_MOST_TRIALS = 2000  # over all orders: the pruner compares each with all before it


def successive_halving(
    proxy: Sequence[Any], real: Sequence[Any], seconds: Sequence[float], seed: int
) -> dict[str, Any]:
    """{regret: {mean, low, high, n}, trained, real_s, orders, factor}: means over orders of such a search.

    proxy, real: accuracy of each architecture, None for a failure. seconds: of its training on real data. trained:
    architectures that are, real_s their time. regret: the really best accuracy minus that of what is found; an
    interval over orders, not over sets or architectures. With equal values on the proxy the earlier ones pass.
    """
    first, last = scored(proxy), scored(real)
    orders = max(3, min(ORDERS, _MOST_TRIALS // max(1, len(first))))
    finite = last[np.isfinite(last)]
    if not len(finite):
        return {"regret": mean_interval([]), "trained": 0.0, "real_s": 0.0, "orders": 0, "factor": FACTOR}
    worth = np.where(np.isfinite(last), last, finite.min())
    passed = [_passing(first, last, numpy_stream(seed, "halving", k).permutation(len(first))) for k in range(orders)]
    regrets = [float(worth.max() - max(worth[k] for k in kept)) for kept in passed]
    return {
        "regret": mean_interval(regrets),
        "trained": float(np.mean([len(kept) for kept in passed])),
        "real_s": float(np.mean([sum(seconds[k] for k in kept) for kept in passed])),
        "orders": orders,
        "factor": FACTOR,
    }


def _passing(first: np.ndarray, last: np.ndarray, order: np.ndarray) -> list[int]:
    """The architectures that are trained on real data, in their order."""
    import optuna

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
    with _quiet():
        study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
        found = []
        for k in map(int, order):
            trial = study.ask()
            trial.report(float(max(first[k], -1.0)), step=1)  # a failure is below every accuracy
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            found.append(k)
            study.tell(trial, float(max(last[k], -1.0)))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No line of Optuna's a trial."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
