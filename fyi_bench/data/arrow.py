"""Arrow files as `save_to_disk` of the Hub's library writes them, read without that library.

They are mapped, not loaded. Two things that a hostile one could do are refused first: buffers that unpack to any size,
and offsets that point outside of them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError
from fyi_bench.files import read_table

_MAGIC = b"ARROW1\0\0"  # of a file that holds the stream and an index behind it
_AGAIN = "It is truncated or another format: copy it again."
_DICTIONARY, _RECORDS = 2, 3  # types of a message
_LARGEST_NOTE = 2**20


def read_arrow(path: Path) -> Any:
    """The pyarrow table of a file, its schema's metadata kept. Raises DataError for one that is damaged or packed."""
    import pyarrow as arrow
    from pyarrow import ipc

    try:
        with arrow.memory_map(str(path)) as source:
            begin = len(_MAGIC) if source.read(len(_MAGIC)) == _MAGIC else 0
            source.seek(begin)
            reader = ipc.MessageReader.open_stream(source)
            try:
                while True:
                    message = reader.read_next_message()
                    if message.type in ("record batch", "dictionary batch", "dictionary") and _packed(message):
                        raise DataError(f"{path} is compressed Arrow, which is not read.\nSave it as parquet.")
            except StopIteration:
                pass
            source.seek(begin)
            with ipc.open_stream(source) as stream:
                table = stream.read_all()
        table.validate(full=True)
        return table
    except (arrow.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        cause = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")[:120]
        raise DataError(f"{path} is not a readable Arrow file ({cause}).\n{_AGAIN}") from error


def _packed(message: Any) -> bool:
    """Whether the buffers of a batch are compressed, by the metadata of its message (a flatbuffer)."""
    data = message.metadata.to_pybytes()

    def field(table: int, number: int) -> int:
        """Where a field of a table is, 0 for one that is absent."""
        listed = table - struct.unpack_from("<i", data, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", data, listed)[0]:
            return 0
        offset = struct.unpack_from("<H", data, listed + 4 + 2 * number)[0]
        return table + offset if offset else 0

    def inner(place: int) -> int:
        return place + struct.unpack_from("<I", data, place)[0]

    root = inner(0)
    batch = inner(field(root, 2))
    if data[field(root, 1)] == _DICTIONARY:
        batch = inner(field(batch, 1))
    return field(batch, 3) != 0


def arrow_files(folder: Path) -> list[Path]:
    """The files of a folder of `save_to_disk`, in their order: of its train split where it has several.

    DataError where a file that it lists is absent, or where none of several splits is called train; [] for a folder
    that is none.
    """
    splits = _notes(folder / "dataset_dict.json").get("splits")
    if isinstance(splits, list) and splits:
        if "train" not in splits and len(splits) > 1:
            raise DataError(
                f"{folder} holds several sets ({', '.join(map(str, splits[:4]))}).\nName the folder of one."
            )
        chosen = "train" if "train" in splits else str(splits[0])
        folder = folder / Path(chosen).name
    listed = _notes(folder / "state.json").get("_data_files")
    names = [str(each.get("filename")) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    found = [folder / Path(name).name for name in names] or sorted(folder.glob("*.arrow"))
    for path in found:
        if not path.is_file():
            raise DataError(f"{path} is absent, and {folder / 'state.json'} lists it.\nCopy it there.")
    return found


def _notes(path: Path) -> dict[str, Any]:
    """A small JSON object; {} where it is absent or none."""
    try:
        return read_table(path, _LARGEST_NOTE)
    except (OSError, ValueError):  # notes that are not JSON say nothing
        return {}
