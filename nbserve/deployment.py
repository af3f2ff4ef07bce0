"""A running server held from Python: start, find, deploy, stop. Runs in the kernel and the CLI."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from nbserve import runfile
from nbserve.bundle.bundle import Bundle
from nbserve.errors import NbserveError, NotFound, ServerGone, from_object
from nbserve.exchange import Answer
from nbserve.logtext import log_text
from nbserve.runfile import RunFile
from nbserve.verbs import Endpoint

START_LIMIT_S = 30.0
STOP_LIMIT_S = 60.0
POLL_S = 0.01

OnProgress = Callable[[str], None]


class Server:
    """A handle on a server process; several handles may hold the same one."""

    def __init__(self, server_id: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.server_id = server_id
        self._process = process
        self._run_file: RunFile | None = None

    @classmethod
    def start(
        cls, owner_pid: int | None = None, *, port: int = 0, notebook: str | None = None, detach: bool = False
    ) -> Server:
        """Start a server without endpoints; returns at once, its nursery imports torch meanwhile.

        It ends with the process `owner_pid` (default: this one), unless `detach`.
        """
        server_id = secrets.token_hex(8)
        directory = runfile.server_dir(server_id)
        directory.mkdir(mode=0o700)
        command = [sys.executable, "-m", "nbserve", "serve", "--server-id", server_id, "--port", str(port), "--debug"]
        if not detach:
            command += ["--owner-pid", str(owner_pid or os.getpid())]
        if notebook:
            command += ["--notebook", notebook]
        with (directory / "server.log").open("ab") as log:
            # Its own session: an interrupt of the kernel must not reach the server.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return cls(server_id, process)

    @classmethod
    def find(cls) -> list[Server]:
        """The live servers of this user, oldest first."""
        return [cls(run_file.server_id) for run_file in runfile.running()]

    def ready(self, limit_s: float = START_LIMIT_S) -> Server:
        """Wait until the server takes orders; raises ServerGone with the end of its log when it does not."""
        deadline = time.monotonic() + limit_s
        while self._read_run_file() is None:
            if not self.is_alive() or time.monotonic() > deadline:
                raise ServerGone(f"the server did not start:\n{self._log_tail()}")
            time.sleep(POLL_S)
        return self

    @property
    def run_file(self) -> RunFile:
        if (found := self._read_run_file()) is None:
            raise ServerGone(f"server {self.server_id} is not running any more")
        return found

    def _read_run_file(self) -> RunFile | None:
        found = runfile.read(runfile.server_dir(self.server_id).with_suffix(".json"))
        if found is not None:
            self._run_file = found
        return found

    def is_alive(self) -> bool:
        if self._process is not None:
            return self._process.poll() is None
        found = self._read_run_file()
        return found is not None and found.is_alive()

    def info(self) -> dict[str, Any]:
        """The object of `nbserve ps --json`."""
        found: dict[str, Any] = self.call("GET", "/server")
        return found

    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(self, found["name"]) for found in self.call("GET", "/endpoints")]

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; raises NotFound."""
        endpoint = Endpoint(self, name)
        endpoint.stats()
        return endpoint

    def deploy(
        self,
        bundle: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        port: int | None = None,
        on_progress: OnProgress = lambda text: None,
    ) -> Endpoint:
        """Serve a bundle, replacing what has its name without losing a request.

        Blocks until the new version answers. Raises StartError when it does not start (the old version goes on),
        BundleError, ConfigError or ServerGone.
        """
        self.ready()
        path = Path(bundle).resolve()
        name = name or Bundle.read(path).name
        wish = {"bundle": str(path), "settings": dict(settings or {}), "port": port}
        for event in self._stream("PUT", f"/endpoints/{quote(name)}", wish):
            if event["event"] == "progress":
                on_progress(event["text"])
            elif event["event"] == "failed":
                raise from_object(event)
            else:
                return Endpoint(self, name)
        raise ServerGone(f"the server ended while it deployed {name}:\n{self._log_tail()}")

    def logs(self, lines: int = 200) -> str:
        return log_text(self.call("GET", f"/logs?lines={lines}"))

    def metrics(self) -> str:
        """The server's metrics in Prometheus' text format."""
        with self._request("GET", "/metrics", None) as answer:
            return answer.read().decode()

    def detach(self) -> None:
        """Let the server live on when its owner ends."""
        self.call("POST", "/detach")

    def stop(self, limit_s: float = STOP_LIMIT_S) -> None:
        """End the server after the requests in flight; done when the process is gone."""
        # Its run file goes a little earlier.
        known = self._read_run_file()
        try:
            self.call("POST", "/stop")
        except ServerGone:
            pass  # It is what was asked for.
        deadline = time.monotonic() + limit_s
        while self.is_alive() or (known is not None and known.is_alive()):
            if time.monotonic() > deadline:
                raise NbserveError(f"server {self.server_id} still runs {limit_s:g} s after it was told to stop")
            time.sleep(POLL_S)
        if self._process is not None:
            self._process.wait()

    def _log_tail(self) -> str:
        try:
            return (runfile.server_dir(self.server_id) / "server.log").read_text(errors="replace")[-4000:]
        except OSError:
            return "(its log is gone)"

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask the management API, JSON both ways; raises the error that it answers with."""
        with self._request(method, path, body) as answer:
            return orjson.loads(answer.read())

    def _stream(self, method: str, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with self._request(method, path, body) as answer:
            for line in answer:
                yield orjson.loads(line)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        return self.send(method, path, orjson.dumps(body or {}), {"Content-Type": "application/json"})

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Open one exchange with the management API; raises the error that it answers with."""
        answer = self.ask(method, path, body, headers)
        if answer.status >= 400:
            with answer:
                raise from_object(orjson.loads(answer.read()))
        return answer

    def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Open one exchange with the management API, whatever it answers."""
        run_file = self.ready().run_file
        sent = {"Authorization": f"Bearer {run_file.token}", **headers}
        return Answer(run_file.management_url, method, path, body, sent)


def find_endpoint(name: str, server_id: str | None = None) -> Endpoint:
    """The endpoint of that name on the newest live server of this user that has it, or on this one; raises NotFound."""
    names = []
    for server in reversed(Server.find()):
        if server_id not in (None, server.server_id):
            continue
        for endpoint in server.endpoints():
            if endpoint.name == name:
                return endpoint
            names.append(endpoint.name)
    who = "no running server" if server_id is None else f"no running server {server_id}"
    raise NotFound(f"{who} has an endpoint {name!r}; there are: {', '.join(names) or 'none'}")
