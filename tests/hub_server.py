"""A server that answers as the Hugging Face Hub does, for downloads: its pages, headers and errors, on this machine.

What is modelled is what `huggingface_hub` asks for: the facts of a repository, its tree page by page, a file's headers,
and its content, of large files behind a redirect; gated, private and absent ones; a server that is busy or breaks off.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

PAGE = 2  # entries of a tree's page
TOKEN = "hf_" + "x" * 34
_LARGE = 4000  # bytes from which a file lies behind a redirect


@dataclass
class Repository:
    """files: name -> content, by revision. gated: whether its terms have to be accepted. trouble: 'busy' (429), 'down'
    (503), 'cut' (the first answer with a large file breaks off in the middle) or 'ranges' (so too, and none is known).
    """

    revisions: dict[str, dict[str, bytes]]
    kind: str = "datasets"
    private: bool = False
    gated: bool = False
    trouble: str = ""

    def commit(self, revision: str) -> str:
        """The commit of a branch; 40 hex digits."""
        return hashlib.sha1(revision.encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch or a commit."""
        return next((files for name, files in self.revisions.items() if revision in (name, self.commit(name))), None)


@dataclass
class HubServer:
    """address: of the server. repositories: by OWNER/NAME; asked: method and path of every request."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)


@contextmanager
def serving() -> Iterator[HubServer]:
    """The server, while it runs."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _tree(files: dict[str, bytes], inside: str, deep: bool) -> list[dict[str, object]]:
    """The entries of a folder of a repository, with all below it where `deep`."""
    below = inside + "/" if inside else ""
    paths = [path for path in sorted(files) if path.startswith(below)]
    folders = sorted({below + rest.split("/")[0] for path in paths if "/" in (rest := path[len(below) :])})
    found: list[dict[str, object]] = [
        {"type": "directory", "path": each, "size": 0, "oid": "0" * 40} for each in folders
    ]
    shown = [path for path in paths if deep or "/" not in path[len(below) :]]
    return found + [
        {"type": "file", "path": path, "size": len(files[path]), "oid": hashlib.sha1(files[path]).hexdigest()}
        for path in shown
    ]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route(False)

    def do_GET(self) -> None:
        self._route(True)

    def _route(self, body: bool) -> None:
        url = urlparse(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        self.hub.asked.append(f"{self.command} {url.path}")
        if parts[0] == "cdn":
            self._content(parts[1], parts[2], body)
        elif parts[0] == "api":
            self._api(parts[1], "/".join(parts[2:4]), parts[4:], parse_qs(url.query))
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            self._file("/".join(parts[:2]), kind, parts[3], "/".join(parts[4:]), body)

    def _repository(self, name: str, kind: str) -> Repository | None:
        """The repository, or None where the refusal was answered."""
        found, token = self.hub.repositories.get(name), self.headers.get("Authorization")
        if found is None or found.kind != kind or (found.private and token != f"Bearer {TOKEN}"):
            self._refuse(401 if token is None else 404, "RepoNotFound")
        elif found.trouble == "busy":
            self._refuse(429, "", {"Retry-After": "1"})
        elif found.trouble == "down":
            self._refuse(503, "")
        else:
            return found
        return None

    def _api(self, kind: str, name: str, rest: list[str], query: dict[str, list[str]]) -> None:
        repository = self._repository(name, kind)
        if repository is None:
            return
        revision = rest[1] if rest else "main"
        files = repository.files(revision)
        if files is None:
            self._refuse(404, "RevisionNotFound")
        elif rest and rest[0] == "tree":
            start, inside = int(query.get("cursor", ["0"])[0]), "/".join(rest[2:])
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = _tree(files, inside, deep)
            if inside and not entries:
                self._refuse(404, "EntryNotFound")
                return
            more = {}
            if start + PAGE < len(entries):
                place = "/".join([self.hub.address, "api", kind, name, *rest])
                more = {"Link": f'<{place}?recursive={deep}&cursor={start + PAGE}>; rel="next"'}
            self._json(entries[start : start + PAGE], more)
        else:
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            commit = next(repository.commit(key) for key, value in repository.revisions.items() if value is files)
            self._json({"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}, {})

    def _file(self, name: str, kind: str, revision: str, path: str, body: bool) -> None:
        repository = self._repository(name, kind)
        if repository is None:
            return
        files = repository.files(revision)
        if repository.gated:
            self._refuse(403, "GatedRepo")
        elif files is None:
            self._refuse(404, "RevisionNotFound")
        elif path not in files:
            self._refuse(404, "EntryNotFound")
        else:
            content = files[path]
            digest = hashlib.sha256(content).hexdigest()
            commit = next(repository.commit(key) for key, value in repository.revisions.items() if value is files)
            facts = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
            if len(content) < _LARGE:
                self._bytes(content, facts, body)
                return
            # on another host: redirects within its own the client follows at once
            place = f"{self.hub.address.replace('127.0.0.1', 'localhost')}/cdn/{repository.trouble or 'whole'}/{digest}"
            facts |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"', "Location": place}
            self._answer(302, facts, b"", body)

    def _content(self, trouble: str, digest: str, body: bool) -> None:
        every = (content for each in self.hub.repositories.values() for files in each.revisions.values()
                 for content in files.values())  # fmt: skip
        content = next(each for each in every if hashlib.sha256(each).hexdigest() == digest)
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        part = content[start:]
        facts = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if start and trouble == "cut":
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if trouble in ("cut", "ranges") and digest not in self.hub.cut:
            self.hub.cut.add(digest)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.close()
            return
        if trouble == "ranges":
            self._bytes(content, {"ETag": f'"{digest}"'}, body)
            return
        self._answer(206 if start else 200, facts, part, body)

    def _bytes(self, content: bytes, facts: dict[str, str], body: bool) -> None:
        self._answer(200, facts, content, body)

    def _json(self, content: object, more: dict[str, str]) -> None:
        self._answer(200, {"Content-Type": "application/json", **more}, json.dumps(content).encode(), True)

    def _refuse(self, code: int, name: str, more: dict[str, str] | None = None) -> None:
        told = {"X-Error-Code": name, "X-Error-Message": name} if name else {}
        self._answer(code, {**told, **(more or {})}, json.dumps({"error": name}).encode(), self.command == "GET")

    def _answer(self, code: int, facts: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(code)
        for key, value in facts.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
