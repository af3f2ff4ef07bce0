"""A real Jupyter server with the extension, as pip enabled it, in folders of its own."""

from __future__ import annotations

import http.cookiejar
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

TOKEN = "a-token-of-the-tests"
START_LIMIT_S = 60
LIMIT_S = 60
JSON = {"Content-Type": "application/json"}
POLL_S = 0.05

FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes
    url: str


@dataclass(frozen=True)
class Jupyter:
    """Where a server listens: `url` ends with its base_url, which ends with a slash."""

    url: str
    log: Path

    def get(self, path: str, token: str | None = TOKEN, method: str = "GET") -> Answer:
        return self.ask(method, path, token=token)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        sent = {} if token is None else {"Authorization": f"token {token}"}
        request = urllib.request.Request(self.url + path, body, {**sent, **(headers or {})}, method=method)
        return _answer(urllib.request.build_opener(), request)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """JSON both ways, of an API that must not fail."""
        answer = self.ask(method, path, None if body is None else json.dumps(body).encode(), JSON)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @property
    def pid(self) -> int:
        [path] = self.log.parent.rglob("jpserver-*.json")
        return int(json.loads(path.read_text())["pid"])


class Person:
    """Somebody who has logged in with a browser: cookies, and no token in any header."""

    def __init__(self, jupyter: Jupyter) -> None:
        self.jupyter = jupyter
        self._jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))
        self.ask("GET", "login")
        form = urllib.parse.urlencode({"password": TOKEN, "_xsrf": self.xsrf})
        self.ask("POST", "login", form.encode())

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return _answer(
            self._opener, urllib.request.Request(self.jupyter.url + path, body, dict(headers or {}), method=method)
        )

    @property
    def xsrf(self) -> str:
        [value] = [cookie.value for cookie in self._jar if cookie.name == "_xsrf"]
        return str(value)

    @property
    def cookies(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._jar)


def _answer(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Answer:
    try:
        with opener.open(request, timeout=LIMIT_S) as response:
            return Answer(response.status, response.headers, response.read(), response.url)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read(), error.url)


@contextmanager
def running_server(folder: Path, base_url: str, extra_environ: dict[str, str]) -> Iterator[Jupyter]:
    environ = {**os.environ, **{name: str(folder / name.lower()) for name in FOLDERS}, **extra_environ}
    arguments = ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.base_url={base_url}", "--allow-root"]
    arguments += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--no-browser"]
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", *arguments], env=environ, stdout=output, stderr=output
        )
        try:
            yield Jupyter(url_when_up(process, Path(environ["JUPYTER_RUNTIME_DIR"]), log), log)
        finally:
            process.terminate()
            process.wait(timeout=30)


def url_when_up(process: subprocess.Popen[bytes], runtime_dir: Path, log: Path) -> str:
    """The address of a Jupyter server, once it listens; `runtime_dir` is its alone."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for path in runtime_dir.glob("jpserver-*.json"):
            # The file is there before the server listens.
            if (url := _read(path)) and _is_listening(url):
                return url
        time.sleep(POLL_S)
    raise AssertionError(f"Jupyter's server did not come up:\n{log.read_text()}")


def _read(path: Path) -> str | None:
    """The address in a run file; None while it is being written."""
    try:
        return str(json.loads(path.read_text())["url"])
    except ValueError:
        return None


def _is_listening(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", params=["/", "/user/ann/"])
def jupyter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    with running_server(tmp_path_factory.mktemp("jupyter"), request.param, {}) as server:
        yield server
