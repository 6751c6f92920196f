"""Repositories of the Hugging Face Hub by address, `hf:OWNER/NAME[/FILE][@REVISION]`, as files of this machine.

The Hub's own cache holds them (`HF_HOME`), so what was fetched once works without a network (`HF_HUB_OFFLINE=1`). Only
files that a reader here knows are fetched, and the client never runs what is in a repository.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fyi_bench.errors import DataError

PREFIX = "hf:"
# what is fetched of a whole repository
WANTED = (
    "*.parquet", "*.arrow", "*.safetensors", "*.pt", "*.pth", "*.npz", "*.npy", "*.zip", "*.tar", "*.tar.gz", "*.tgz",
    "*.png", "*.jpg", "*.jpeg", "*.webp", "args.txt", "dataset_info.json", "dataset_dict.json", "state.json",
    "README.md",
)  # fmt: skip
_ADDRESS = re.compile(r"hf:/{0,2}(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[\w./-]+))?")
_KINDS = ("dataset", "model")  # of repositories; some sets lie beside networks
_TIMEOUT = 10.0
_CACHE_ONLY = ContextVar("cache_only", default=False)
_log = logging.getLogger("fyi_bench.data")


@dataclass(frozen=True)
class Address:
    """repo: 'OWNER/NAME'; file: a file or folder inside, '' = all of it.

    revision: a branch, tag or commit; None = the newest.
    """

    repo: str
    file: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        inner = f"/{self.file}" if self.file else ""
        return f"{PREFIX}{self.repo}{inner}" + (f"@{self.revision}" if self.revision else "")

    @staticmethod
    def of(text: str) -> Address:
        """The parts of an address. Raises DataError for what is none."""
        match = _ADDRESS.fullmatch(text)
        if not match or ".." in text:
            raise DataError(f"{text} is no address of the Hub.\nWrite hf:OWNER/NAME, hf:OWNER/NAME/FILE or …@REVISION.")
        return Address(match["repo"], (match["file"] or "").strip("/"), match["revision"])


def is_address(path: str | Path) -> bool:
    """Whether it names a repository of the Hub rather than a file."""
    return str(path).startswith(PREFIX)


@contextlib.contextmanager
def cache_only() -> Iterator[None]:
    """Look in the cache alone, for a dry run."""
    before = _CACHE_ONLY.set(True)
    try:
        yield
    finally:
        _CACHE_ONLY.reset(before)


def fetch(address: Address, budget: int) -> Path:
    """The file, or the folder of the whole repository, fetched where the cache lacks it and not within `cache_only`.

    budget: bytes it may have. Raises DataError where it cannot be reached, is not there, or is too large.
    """
    try:
        import huggingface_hub as hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise DataError(f"{address} needs the package huggingface_hub.\npip install 'fyi-bench[hub]'") from error

    problem: Exception | None = None
    for kind in _KINDS:
        try:
            found = _fetch(hub, address, kind, budget)
        except hub.errors.GatedRepoError as error:
            place = f"{hub.constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{address.repo}"
            raise DataError(
                f"{address.repo} is gated: its owner asks for terms to be accepted.\n"
                f"Accept them at {place}, then log in with `hf auth login`, or set HF_TOKEN."
            ) from error
        except hub.errors.RepositoryNotFoundError as error:  # of the other kind, perhaps; or private
            problem = problem or error
        except hub.errors.RevisionNotFoundError as error:
            raise DataError(
                f"{address.repo} has no revision '{address.revision}'.\nName a branch or a commit."
            ) from error
        except hub.errors.LocalEntryNotFoundError as error:
            problem = problem or error
        except hub.errors.EntryNotFoundError as error:
            raise DataError(
                f"{address.repo} has no file {address.file}.\nName another, or the repository alone."
            ) from error
        except DataError:
            raise
        except Exception as error:  # its transport's own errors have no common type
            raise DataError(_unreachable(address, error, hub.constants.HF_HUB_OFFLINE)) from error
        else:
            if found.exists():
                return found
            raise DataError(
                f"{address.repo} has nothing called {address.file}.\nName another, or the repository alone."
            )
    if isinstance(problem, hub.errors.RepositoryNotFoundError) and not hub.constants.HF_HUB_OFFLINE:
        raise DataError(
            f"The Hub has no repository {address.repo}, or it is private.\n"
            "Check the address; for a private one log in with `hf auth login`."
        ) from problem
    raise DataError(_unreachable(address, problem, hub.constants.HF_HUB_OFFLINE)) from problem


def _unreachable(address: Address, error: Exception | None, offline: bool) -> str:
    inner: BaseException | None = error
    while inner is not None and not hasattr(inner, "response") and inner.__cause__ is not None:
        inner = inner.__cause__
    answer = getattr(inner, "response", None)
    told = f"it answers {answer.status_code} {answer.reason_phrase}" if answer is not None else str(inner)
    cause = (told or type(inner).__name__).splitlines()[0].rstrip(".:")[:120]
    cause = "a dry run fetches nothing" if _CACHE_ONLY.get() else "HF_HUB_OFFLINE is set" if offline else cause
    return (
        f"{address} cannot be reached, and it is not whole in the cache of the Hub ({cause}).\n"
        f"Fetch it where there is a network (hf download {address.repo} --repo-type dataset), or name its files."
    )


def _fetch(hub: Any, address: Address, kind: str, budget: int) -> Path:
    facts = {"repo_id": address.repo, "repo_type": kind, "revision": address.revision}
    how = {"etag_timeout": _TIMEOUT, "local_files_only": _CACHE_ONLY.get()}
    if Path(address.file).suffix:
        _check(address, lambda: [hub.get_hf_file_metadata(
            hub.hf_hub_url(address.repo, address.file, repo_type=kind, revision=address.revision), timeout=_TIMEOUT
        ).size or 0], hub, budget)  # fmt: skip
        return Path(hub.hf_hub_download(filename=address.file, **how, **facts))

    def sizes() -> list[int]:
        from fnmatch import fnmatch

        info = hub.HfApi().repo_info(files_metadata=True, timeout=_TIMEOUT, **facts)
        wanted = [f for f in info.siblings or () if any(fnmatch(f.rfilename, pattern) for pattern in patterns)]
        return [f.size or 0 for f in wanted]

    patterns = [f"{address.file}/{pattern}" if address.file else pattern for pattern in WANTED]
    _check(address, sizes, hub, budget)
    return Path(hub.snapshot_download(allow_patterns=patterns, **how, **facts)) / address.file


def _check(address: Address, sizes: Callable[[], list[int]], hub: Any, budget: int) -> None:
    """DataError where more is to be fetched than the budget; nothing without a network: then the cache answers."""
    if hub.constants.HF_HUB_OFFLINE or _CACHE_ONLY.get():
        return
    try:
        total = sum(sizes())
    except (hub.errors.RepositoryNotFoundError, hub.errors.EntryNotFoundError, hub.errors.RevisionNotFoundError):
        raise
    except Exception as error:  # not reached, in one of many ways: the cache may still have it
        _log.debug("the size of %s is not known: %s", address, error)
        return
    if total > budget:
        raise DataError(
            f"{address} has {total / 2**30:.1f} GiB of files; at most {budget / 2**30:.1f} GiB are fetched.\n"
            "Name one of its files, or raise --max-bytes (max_bytes=)."
        )
