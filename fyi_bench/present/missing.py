"""A result that is not there yet, as the command that makes it: what tables and figures answer a hole with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Missing:
    """A command that would fill holes of a table, or give what a figure is drawn from.

    task: 'distill', 'continual' or 'nas'. method, flip, dataset, ipc, architectures (empty: the protocol's own),
    protocol, options (further words): its arguments. fills: labels of the holes. seconds: estimate, None where it is
    not known; reason: why it cannot be run.
    """

    task: str
    method: str
    flip: str
    dataset: str
    ipc: int
    architectures: tuple[str, ...]
    protocol: str
    fills: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    seconds: float | None = None
    reason: str = ""

    @property
    def command(self) -> str:
        """The line to type."""
        return " ".join(["fyi-bench", *self.arguments])

    @property
    def arguments(self) -> list[str]:
        """The words after the name of the program."""
        words = [self.task, "--method", self.method]
        words += {"none": [], "fyi": ["--fyi"]}.get(self.flip, ["--flip", self.flip])
        base, *changes = self.protocol.split("+")
        words += ["--dataset", self.dataset, "--ipc", str(self.ipc), "--protocol", base]
        for change in changes:
            words += ["--set", change]
        for name in self.architectures:
            words += ["--arch", name]
        return [*words, *self.options]

    def values_of(self, option: str) -> list[str]:
        """The values that the further words give to an option."""
        return [value for word, value in zip(self.options[::2], self.options[1::2], strict=True) if word == option]

    @property
    def changes(self) -> dict[str, str]:
        """Keys of the recipe or the protocol that the further words set, and their values."""
        return dict(one.split("=", 1) for one in self.values_of("--set"))
