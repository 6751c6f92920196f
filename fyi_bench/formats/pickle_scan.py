"""A pickle read as text, without running it: which names it asks for, and which storages it declares.

Second fence beside torch's own restricted reader. That one keeps code from running, but it believes the sizes a file
declares (a storage larger than its record), lets a file ask for memory (`bytearray` of any length), and does not
say what a refused file wanted. Only what `torch.save` writes for containers of plain tensors passes here.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

# Names a file of plain tensors and numbers refers to; the NumPy ones are read by stand-ins (see torch_file).
TENSOR_NAMES = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "_codecs.encode",
    }
)
NUMPY_NAMES = frozenset(
    {"numpy.dtype", "numpy.ndarray"}
    | {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
)
ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
    "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
STORAGE_NAMES = {f"{module}.{name}": size for name, size in ITEM_BYTES.items() for module in ("torch", "torch.cuda")}

_PLAIN = frozenset(
    {"PROTO", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "REDUCE", "BUILD", "NONE", "NEWTRUE", "NEWFALSE"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
    | {"GLOBAL", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT"}
)
_WHOLE = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})
_LITERAL = _WHOLE | {"BINUNICODE", "SHORT_BINSTRING", "NONE"}
_PUT = frozenset({"BINPUT", "LONG_BINPUT"})
_GET = frozenset({"BINGET", "LONG_BINGET"})
_OPAQUE = object()  # a memo entry that is not a literal or a name


class Suspicious(ValueError):
    """The pickle holds something a file of plain tensors has not; the text says what."""


@dataclass(frozen=True)
class Storage:
    """A storage the pickle declares: name of its record, and the bytes it is said to have."""

    key: str
    nbytes: int


@dataclass
class Scan:
    """Facts of one pickle. names: every class or function it asks for; storages in their order, repetitions kept."""

    names: set[str] = field(default_factory=set)
    storages: list[Storage] = field(default_factory=list)

    @property
    def foreign(self) -> list[str]:
        """Names that no file of plain tensors and numbers needs, sorted."""
        return sorted(self.names - TENSOR_NAMES - NUMPY_NAMES - set(STORAGE_NAMES))


def scan(stream: Any) -> Scan:
    """Read one pickle from a stream (with `read`, `readline` and `tell`), which is left after its end.

    Raises Suspicious, or another ValueError where the bytes are no pickle or end too early.
    """
    reader = _Reader(Scan())
    for opcode, argument, _ in pickletools.genops(stream):
        reader.step(opcode.name, argument)
    return reader.finish()


class _Reader:
    """Follows a pickle from left to right (it has no jumps), with what is needed to understand storages."""

    def __init__(self, found: Scan):
        self.found = found
        self.memo: dict[int, Any] = {}
        self.recent: list[tuple[str, Any]] = []  # the last operations, without PUTs, memo already looked up
        self.last_was_push = False
        self.storage_mentions = 0

    def step(self, name: str, argument: Any) -> None:
        if name not in _PLAIN:
            raise Suspicious(f"the instruction {name}")
        if name in _PUT:
            self.memo[argument] = self.recent[-1] if self.last_was_push else ("OBJECT", _OPAQUE)
            return
        entry = self._entry(name, argument)
        self.recent = [*self.recent[-8:], entry]
        self.last_was_push = entry[0] in _LITERAL or entry[0] == "GLOBAL"
        if entry[0] == "GLOBAL" and entry[1] in STORAGE_NAMES:
            self.storage_mentions += 1
        if name == "BINPERSID":
            self._storage()

    def _entry(self, name: str, argument: Any) -> tuple[str, Any]:
        if name in _GET:
            if argument not in self.memo:
                raise Suspicious("a reference to nothing")
            return self.memo[argument]
        if name == "GLOBAL":
            argument = ".".join(argument.split(" ", 1))
            self.found.names.add(argument)
        return name, argument

    def _storage(self) -> None:
        """MARK, 'storage', type, key, place, elements[, None], TUPLE, BINPERSID: nothing else is a storage."""
        before = self.recent[:-1]
        starts = [i for i, (name, _) in enumerate(before) if name == "MARK"]
        fields = before[starts[-1] + 1 :] if starts else []
        kinds = [name for name, _ in fields]
        text = {"BINUNICODE", "SHORT_BINSTRING"}
        if (
            len(fields) not in (6, 7) or kinds[-1] != "TUPLE" or fields[0][1] != "storage" or kinds[1] != "GLOBAL"
            or fields[1][1] not in STORAGE_NAMES or not {kinds[0], kinds[2], kinds[3]} <= text
            or kinds[4] not in _WHOLE or (len(fields) == 7 and kinds[5] != "NONE") or fields[4][1] < 0
        ):  # fmt: skip
            raise Suspicious("a storage that is not written as torch writes them")
        self.storage_mentions -= 1
        self.found.storages.append(Storage(fields[2][1], fields[4][1] * STORAGE_NAMES[fields[1][1]]))

    def finish(self) -> Scan:
        if self.storage_mentions:
            raise Suspicious("a storage type outside a storage")
        return self.found
