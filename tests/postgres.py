"""A PostgreSQL server of the tests' own, in a temporary folder, that can be restarted and killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

USER = "postgres"  # the server refuses to run as root
ABSENT = "no PostgreSQL server is installed here (Debian: apt-get install postgresql)"


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL installed, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: int(p.parts[4]))
    on_path = shutil.which("pg_ctl")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path and shutil.which("initdb") else None


class Server:
    """`with Server() as server:` gives a running one; `url` is that of its database."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fyi-pg-", dir="/tmp"))  # sockets need a short path
        self.bin = binaries()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Server:
        if os.getuid() == 0:
            shutil.chown(self.folder, USER)
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", USER, "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Up, and answering."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-o", options, "-l", f"{self.folder}/log", "start")

    def stop(self, mode: str = "fast") -> None:
        """Down; connections are cut."""
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-m", mode, "stop", check=False)

    @contextlib.contextmanager
    def passwords(self) -> Iterator[None]:
        """Inside, it asks for passwords, and has none that fits."""
        rules = self.folder / "data" / "pg_hba.conf"
        before = rules.read_text()
        try:
            rules.write_text("host all all 127.0.0.1/32 scram-sha-256\n")
            self.stop()
            self.start()
            yield
        finally:
            rules.write_text(before)
            self.stop()
            self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        command = [str(self.bin / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        subprocess.run(
            command, check=check, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120
        )
