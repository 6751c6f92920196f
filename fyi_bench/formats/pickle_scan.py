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
# of sparse tensors, allowed where a layout has them: their places must be checked before they are used
SPARSE_NAMES = frozenset({"torch._utils._rebuild_sparse_tensor", "torch.serialization._get_layout"})
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
_TEXT = frozenset({"BINUNICODE", "SHORT_BINSTRING"})
_KNOWN = _WHOLE | _TEXT | {"NONE", "GLOBAL"}
_PUT = frozenset({"BINPUT", "LONG_BINPUT"})
_GET = frozenset({"BINGET", "LONG_BINGET"})
_OPAQUE = ("OBJECT", None)  # a memo entry that is not a literal or a name


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

    def foreign(self, more: frozenset[str] = frozenset()) -> list[str]:
        """Names that no file of plain tensors and numbers needs, nor these, sorted."""
        return sorted(self.names - TENSOR_NAMES - NUMPY_NAMES - set(STORAGE_NAMES) - more)


def scan(stream: Any) -> Scan:
    """Read one pickle from a stream (with `read`, `readline` and `tell`), which is left after its end.

    Raises Suspicious, or another ValueError where the bytes are no pickle or end too early.
    """
    found, memo, unclaimed = Scan(), {}, 0
    recent: list[tuple[str, Any]] = []  # the last operations, without PUTs, memo already looked up
    for opcode, argument, _ in pickletools.genops(stream):  # from left to right: a pickle has no jumps
        name = opcode.name
        if name not in _PLAIN:
            raise Suspicious(f"the instruction {name}")
        if name in _PUT:
            memo[argument] = recent[-1] if recent and recent[-1][0] in _KNOWN else _OPAQUE
            continue
        if name in _GET and argument not in memo:
            raise Suspicious("a reference to nothing")
        if name == "GLOBAL":
            argument = ".".join(str(argument).split(" ", 1))
            found.names.add(argument)
        entry = memo[argument] if name in _GET else (name, argument)
        recent = [*recent[-8:], entry]
        unclaimed += entry[0] == "GLOBAL" and entry[1] in STORAGE_NAMES
        if name == "BINPERSID":
            found.storages.append(_storage(recent[:-1]))
            unclaimed -= 1
    if unclaimed:
        raise Suspicious("a storage type outside a storage")
    return found


def _storage(before: list[tuple[str, Any]]) -> Storage:
    """MARK, 'storage', type, key, place, elements[, None], TUPLE: nothing else is a storage."""
    starts = [i for i, (name, _) in enumerate(before) if name == "MARK"]
    fields = before[starts[-1] + 1 :] if starts else []
    kinds = [name for name, _ in fields]
    if (
        len(fields) not in (6, 7) or kinds[-1] != "TUPLE" or fields[0][1] != "storage" or kinds[1] != "GLOBAL"
        or fields[1][1] not in STORAGE_NAMES or not {kinds[0], kinds[2], kinds[3]} <= _TEXT
        or kinds[4] not in _WHOLE or (len(fields) == 7 and kinds[5] != "NONE") or fields[4][1] < 0
    ):  # fmt: skip
        raise Suspicious("a storage that is not written as torch writes them")
    return Storage(fields[2][1], fields[4][1] * STORAGE_NAMES[fields[1][1]])
