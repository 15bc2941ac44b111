"""A server that the W&B client can talk to, on this machine alone, for `make test-wandb`.

It is openwandb, under a licence that allows no commercial use (CC BY-NC 4.0): nothing in the package needs it, it is
installed into an environment of its own, and only to be tested against.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.5.25"
KEY = "local0000000000000000000000000000000000000000"
"""The key of a fresh openwandb."""


def installed(venv: Path) -> Path:
    """The program in its own environment, which is made where there is none."""
    program = venv / "bin" / "openwandb"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, f"openwandb=={VERSION}"], check=True)
    return program


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Server:
    """openwandb on 127.0.0.1, its data in a folder that outlives it."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder, self.port = program, folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(self.program), "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.folder)],
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("OPENWANDB_")},
            )
        for _ in range(300):
            try:
                self.get("/api/v2/projects")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"openwandb does not start: see {self.folder}/server.log")

    def kill(self) -> None:
        """As a machine that loses its power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def points(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """What it was sent of a run's curves: steps and values, by name."""
        found = self.get(f"/api/v2/runs/{run}/metrics")["metrics_by_key"]
        return {key: sorted((row["step"], row["value"]) for row in rows) for key, rows in found.items()}

    def run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/v2/runs/{run}")["run"]
        return found


class Proxy:
    """Stands before a server, and refuses curves and summaries, or is gone, when it is told to."""

    def __init__(self, server: Server) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.refuses and self.path.endswith("/file_stream"):
                    self._answer(403, b'{"error": "refused"}')
                    return
                onwards = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
                onwards.request(self.command, self.path, body, dict(self.headers))
                answer = onwards.getresponse()
                self._answer(answer.status, answer.read())

            do_GET = do_POST = do_PUT = do

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *values: Any) -> None:
                return

        self.refuses = True
        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.listener.server_address[1]}"
        threading.Thread(target=self.listener.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown()
        self.listener.server_close()
