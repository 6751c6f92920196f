"""Networks that live through many iterations, with their optimisers, and take turns in one module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Optimiser = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class NetworkPool:
    """`slots` networks of one architecture, each with its optimiser's state, as rows of one tensor.

    The module and the optimiser are one object each for all of them, so that recorded steps find them where they were;
    what is changed outside of `turn` is lost. Whole numbers among the values (batches counted by a norm, steps by
    Adam) are exact up to 2^24.
    """

    def __init__(self, network: nn.Module, optimiser: Optimiser, slots: int):
        self.network = network
        self.optimiser = optimiser(list(network.parameters()))
        self._rest = self._at_rest()
        self._values = [*network.parameters(), *network.buffers(), *self._rest]
        self._sizes = [value.numel() for value in self._values]
        self.rows = torch.zeros(slots, sum(self._sizes), dtype=self._values[0].dtype, device=self._values[0].device)

    def fill(self, slot: int, fresh: Callable[[], nn.Module]) -> None:
        """Put a new network at rest into the slot; `fresh` gives this module new values (`Method.fresh_network`)."""
        if fresh() is not self.network:
            raise ValueError("A pool's networks are one module with new values.")
        with torch.no_grad():
            for value in self._rest:
                value.zero_()
        self._store(slot)

    def show(self, slot: int) -> nn.Module:
        """The module with the values of the slot; it changes nothing there."""
        with torch.no_grad():
            for value, part in zip(self._values, self.rows[slot].split(self._sizes), strict=True):
                value.copy_(part.view(value.shape))
        return self.network

    @contextmanager
    def turn(self, slot: int) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        """(network, its optimiser) of the slot, whose changes are kept at the end."""
        self.show(slot)
        yield self.network, self.optimiser
        self._store(slot)

    def state(self) -> dict[str, Tensor]:
        """All networks for a checkpoint; large ones are written rarely (see the engine)."""
        return {"networks": self.rows}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.rows.copy_(state["networks"])

    def _store(self, slot: int) -> None:
        with torch.no_grad():
            self.rows[slot] = torch.cat([v.detach().flatten().to(self.rows) for v in self._values])

    def _at_rest(self) -> list[Tensor]:
        """The optimiser's state tensors, made by a step that moves nothing, at zero."""
        groups, held = self.optimiser.param_groups, [p.detach().clone() for p in self.network.parameters()]
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            for parameter, value in zip(self.network.parameters(), held, strict=True):
                parameter.copy_(value)
        found = [
            value
            for group in groups
            for parameter in group["params"]
            for value in self.optimiser.state[parameter].values()
            if isinstance(value, Tensor)
        ]
        for value in found:
            value.zero_()
        return found
