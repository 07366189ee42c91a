"""An S3 server (rclone's) that checks signatures, and a door before it that notes requests and refuses some."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from services.local.embedded_servers import Server, claim_port

KEY, SECRET = "test-key", "planted-61c0a7-storage-secret"
RCLONE = Path(sys.executable).with_name("rclone")
HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


def operation(method: str, path: str) -> str:
    """What S3 calls a request."""
    asked = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if "partNumber" in asked:
        return f"UploadPart {asked['partNumber'][0]}"
    kinds = {"POST": "CompleteMultipartUpload", "DELETE": "AbortMultipartUpload"}
    return "CreateMultipartUpload" if "uploads" in asked else kinds[method] if "uploadId" in asked else method


class ObjectStorage:
    """The server's ``folder`` holds its buckets as folders; requests go through the door at ``url``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.asked: list[str] = []
        """The operations, in their order."""
        self.refuse: Callable[[str], bool] = lambda _: False
        """Whether an operation is answered 503 in the server's place."""
        self.answered: Callable[[str], None] = lambda _: None
        """Called when the server has answered an operation, before its client knows."""
        storage = self

        class Door(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                name = operation(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                storage.asked.append(name)
                if storage.refuse(name):
                    self._answer(503, [], b"")
                    return
                server = http.client.HTTPConnection("127.0.0.1", port)
                try:
                    headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP}
                    server.request(self.command, self.path, body, headers)
                    answer = server.getresponse()
                    found = answer.read()
                finally:
                    server.close()
                storage.answered(name)
                self._answer(answer.status, answer.getheaders(), found)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - the server's names

            def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                sizes = [value for key, value in headers if key.lower() == "content-length"]
                for key, value in headers:
                    if key.lower() not in HOP:
                        self.send_header(key, value)
                self.send_header("Content-Length", sizes[0] if sizes and self.command == "HEAD" else str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def options(self, **other: Any) -> str:
        """What a Secret block holds; a client that is refused does not try again by itself."""
        client = {"endpoint_url": self.url, "region_name": "us-east-1"}
        retries = {"retries": {"max_attempts": 0}}
        return json.dumps({"key": KEY, "secret": SECRET, "client_kwargs": client, "config_kwargs": retries, **other})


@contextmanager
def object_storage(folder: Path, log_file: Path) -> Iterator[ObjectStorage]:
    """A server on ``folder`` for the time of the block."""
    port = claim_port(0, "a free port")
    command = [str(RCLONE), "serve", "s3", "--config", "", "--addr", f"127.0.0.1:{port}"]
    command += ["--dir-cache-time", "0s", "--auth-key", f"{KEY},{SECRET}", str(folder)]
    server = Server("rclone", command, log_file=log_file, env={"HOME": str(folder)}, cwd=folder)
    try:
        server.wait_ready(lambda: _listens(port), within_seconds=60)
        storage = ObjectStorage(folder, port)
        thread = threading.Thread(target=storage.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield storage
        finally:
            storage.server.shutdown()
            thread.join()
            storage.server.server_close()
    finally:
        server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
