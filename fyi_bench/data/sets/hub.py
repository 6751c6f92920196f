"""Any data set of the Hugging Face Hub whose repository holds parquet files: `hf:OWNER/NAME[@REVISION]`."""

from __future__ import annotations

from pathlib import Path

from fyi_bench.data.entry import DATASETS, DatasetEntry
from fyi_bench.data.hub import PREFIX, Address, fetch
from fyi_bench.data.parquet import ParquetFiles, channels_of
from fyi_bench.errors import DataError

_MOST_BYTES = 2**38  # ImageNet at full size has 150 GB


def _repository(argument: str) -> DatasetEntry:
    address = Address.of(PREFIX + argument)
    folder = fetch(address, _MOST_BYTES)
    inner = _folder_of(folder, address)
    files = ParquetFiles(
        (inner.name,), channels=channels_of(next(iter(sorted(inner.glob("train-*.parquet"))))), where=inner
    )
    return DatasetEntry(str(address), fixed=files, channels=files.channels, source=str(address))


def _folder_of(folder: Path, address: Address) -> Path:
    """Where the train files lie; DataError where there is no such folder, or several."""
    found = sorted({path.parent for path in folder.rglob("train-*.parquet")})
    if len(found) != 1:
        listed = f"in {', '.join(str(each.relative_to(folder)) for each in found[:4])}" if found else "nowhere"
        raise DataError(
            f"{address} should hold train-*.parquet in one folder, and has them {listed}.\n"
            f"Name the folder: {PREFIX}{address.repo}/FOLDER."
        )
    return found[0]


DATASETS.register(
    "hf",
    DatasetEntry(
        "hf",
        at=_repository,
        obtain="hf:OWNER/NAME: a repository of the Hub with train-*.parquet and test-*.parquet.",
    ),
)
