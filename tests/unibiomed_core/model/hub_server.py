"""A hub of one repository on this machine, for tests: what huggingface_hub asks of a server, and how it breaks off."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY, COMMIT = "somebody/toy", "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The files of a folder as a repository.

    Args:
        broken_after: Bytes of a safetensors file after which the line breaks, every time; None for never.
    """

    def __init__(self, folder: Path, broken_after: int | None = None) -> None:
        self.folder = folder
        self.broken_after = broken_after
        self.sent: dict[str, int] = {}
        self.address = ""

    def describe(self, name: str) -> dict[str, object]:
        data = (self.folder / name).read_bytes()
        return {
            "type": "file",
            "path": name,
            "rfilename": name,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            return

        def answer(self, status: int, data: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def do_HEAD(self) -> None:
            self.do_GET(body=False)

        def do_GET(self, body: bool = True) -> None:
            path = urlsplit(self.path).path
            names = sorted(file.name for file in hub.folder.iterdir())
            if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                found: object = [hub.describe(name) for name in names]
            elif path.startswith(f"/api/models/{REPOSITORY}"):
                found = {"id": REPOSITORY, "sha": COMMIT, "siblings": [hub.describe(name) for name in names]}
            elif path.startswith(f"/{REPOSITORY}/resolve/"):
                self.send_file(path.rpartition("/")[2], body)
                return
            else:
                missing = {"X-Error-Code": "RepoNotFound"}
                self.answer(404, b"", missing, body)
                return
            self.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, body)

        def send_file(self, name: str, body: bool) -> None:
            data = (hub.folder / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if body and hub.broken_after is not None and name.endswith(".safetensors"):
                part = data[start : hub.broken_after]
                hub.sent[name] = hub.sent.get(name, 0) + len(part)
                self.answer(206 if start else 200, part, headers | {"Content-Length": str(len(data) - start)})
                self.close_connection = True
                return
            if body:
                hub.sent[name] = hub.sent.get(name, 0) + len(data) - start
            self.answer(206 if start else 200, data[start:], headers, body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
