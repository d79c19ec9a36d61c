"""Real prometheus and prometheus-alertmanager on loopback, and a receiver that keeps what it is sent."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Program:
    """A server that is started, asked whether it is ready, and stopped."""

    def __init__(self, directory: Path, command: list[str], port: int, name: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._directory, self._command, self._name = directory, command, name
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; ready a moment later."""
        with (self._directory / f"{self._name}.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=self._directory, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it, at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def is_ready(self) -> bool:
        """Whether it serves; raises when it ended by itself."""
        assert self.process is not None
        assert self.process.poll() is None, (self._directory / f"{self._name}.log").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return json.loads(response.read())


def alertmanager(directory: Path, config: str, port: int | None = None) -> Program:
    """Alertmanager of one process, without a cluster."""
    port = port or free_port()
    command = [
        "prometheus-alertmanager", f"--config.file={config}", f"--storage.path={directory / 'am-data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    return Program(directory, command, port, "alertmanager")


def prometheus(directory: Path, config: str) -> Program:
    """Prometheus with its data in the directory."""
    port = free_port()
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'prom-data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=2s",
    ]  # fmt: skip
    return Program(directory, command, port, "prometheus")


class Receiver:
    """A webhook receiver: keeps the body of every POST by path."""

    def __init__(self) -> None:
        kept: list[tuple[str, dict[str, Any]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                kept.append((self.path, body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.kept = kept
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def told(self, path: str, alert: str, status: str) -> list[dict[str, Any]]:
        """Alerts of one name and status that came to a path."""
        return [
            one
            for at, body in list(self.kept)
            if at == path
            for one in body["alerts"]
            if one["labels"]["alertname"] == alert and one["status"] == status
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
