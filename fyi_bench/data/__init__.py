"""Real data sets as uint8 tensors: loaders, channel statistics, built-in shapes."""

from __future__ import annotations

from fyi_bench.data.entry import DATASETS, DataFiles, DatasetEntry, Decoded
from fyi_bench.data.load import load_dataset
from fyi_bench.data.manage import DatasetRow, VerifyReport, get, list_datasets, verify
from fyi_bench.data.real import RealDataset, describe, statistics

__all__ = [
    "DATASETS",
    "DataFiles",
    "DatasetEntry",
    "DatasetRow",
    "Decoded",
    "RealDataset",
    "VerifyReport",
    "describe",
    "get",
    "list_datasets",
    "load_dataset",
    "statistics",
    "verify",
]
