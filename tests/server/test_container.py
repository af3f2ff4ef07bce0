"""A server as its container starts it: told all by the environment, as a user without a name who can write to little,
and as the process that inherits orphans."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.served import wait_until
from tests.server.conftest import Load

pytestmark = pytest.mark.process

UID = 10001
TOKEN = "a-token-that-no-log-line-shows"
# Process 1 of its own, on a file system that is read-only but for $TMP. $PRIVATE is a folder in the way to the
# interpreter that others may not enter: it is shown with the interpreter alone.
CONTAINED = """
set -e
mount --bind "$TMP" "$TMP"
if [ -n "$PRIVATE" ]; then
    mount --bind "$PRIVATE" "$STAGE"
    mount -t tmpfs -o mode=755 tmpfs "$PRIVATE"
    mkdir -p "$BASE"
    mount --bind "$STAGE/${BASE#"$PRIVATE"/}" "$BASE"
fi
mount -o remount,bind,ro /
exec setpriv --reuid UID --regid UID --clear-groups env -u PRIVATE -u STAGE -u BASE -u TMP "$@"
""".replace("UID", str(UID))
NBSERVE = (sys.executable, "-m", "nbserve")
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")
# Where there are no namespaces to be had: a subreaper inherits orphans too, and that outlives exec.
SUBREAPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
# The forked process outlives its parent, and ends when its pipe is closed.
CELL = """
import subprocess, sys
LEAVE = "import os, sys; pid = os.fork(); print(pid, flush=True) if pid else sys.stdin.read()"
class H(nbserve.Handler):
    def handle(self, requests, context):
        return [self.leave() if request == "orphan" else request for request in requests]
    def leave(self):
        parent = subprocess.Popen([sys.executable, "-c", LEAVE], stdin=-1, stdout=-1, text=True)
        pid = int(parent.stdout.readline())
        parent.wait()
        return pid
"""


def can_contain() -> bool:
    """Whether there are namespaces for the asking."""
    if os.getuid() != 0 or not all(shutil.which(tool) for tool in ("unshare", "setpriv", "nsenter")):
        return False
    return (
        subprocess.run([*UNSHARE, "mount", "-o", "remount,bind,ro", "/"], capture_output=True, check=False).returncode
        == 0
    )


class Container:
    """The process, what it was given, and what it has logged."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.is_contained = can_contain()
        self.bundle, self.tmp, self.log = folder / "bundle", folder / "tmp", folder / "log"
        self.run = self.tmp / "run"
        shutil.copytree(bundle, self.bundle)
        self.tmp.mkdir()
        folder.chmod(0o755)
        for path in (self.bundle, *self.bundle.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if self.is_contained:
            (folder / "stage").mkdir()
            os.chown(self.tmp, UID, UID)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.tmp),
            "TMPDIR": str(self.tmp),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NBSERVE_RUNTIME_DIR": str(self.run),
            "NBSERVE_BUNDLE": str(self.bundle),
            "NBSERVE_METRICS_PORT": "0",
            "NBSERVE_LOG_FORMAT": "json",
            "NBSERVE_MAX_BATCH_SIZE": "4",
            "NBSERVE_QUEUE_SIZE": "500",
            "NBSERVE_WORKER": "2",
            "NBSERVE_MANAGEMENT_TOKEN": TOKEN,
            "AIP_HTTP_PORT": "0",
            "AIP_HEALTH_ROUTE": "/healthy",
            "AIP_PREDICT_ROUTE": "/predict",
        }
        start = [*UNSHARE, "sh", "-c", CONTAINED, "sh"] if self.is_contained else [sys.executable, "-c", SUBREAPER]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*start, *NBSERVE, "serve", "--queue-size", "600"],
                env=self.environ | _way_to_the_interpreter(folder),
                cwd="/",
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.process.poll() is not None or self.said("/predictions/digits"))
        assert self.process.poll() is None, self.log.read_text()

    @property
    def server(self) -> psutil.Process:
        starter = psutil.Process(self.process.pid)
        return starter.children()[0] if self.is_contained else starter

    def zombies(self) -> list[psutil.Process]:
        return [child for child in self.server.children() if child.status() == psutil.STATUS_ZOMBIE]

    def health(self) -> tuple[int, str]:
        enter = ["nsenter", "-t", str(self.server.pid), "-m", "-p", "-S", str(UID), "-G", str(UID)]
        command = [*(enter if self.is_contained else []), *NBSERVE, "health"]
        done = subprocess.run(
            command, env=self.environ, cwd="/", capture_output=True, text=True, timeout=30, check=False
        )
        return done.returncode, done.stdout.strip()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def said(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if text in line["message"]]

    @property
    def run_file(self) -> dict[str, Any]:
        [path] = self.run.glob("*.json")
        return dict(json.loads(path.read_text()))

    @property
    def metrics_url(self) -> str:
        return str(self.said("metrics at")[0]["message"].split()[-1])


@pytest.fixture(scope="module")
def container(module_bundle: Path) -> Iterator[Container]:
    folder = Path(tempfile.mkdtemp(prefix="nbserve-container-"))
    container = Container(folder, module_bundle)
    yield container
    container.process.kill()
    container.process.wait()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def module_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import nbserve
    from nbserve.capture.capture import capture

    namespace: dict[str, Any] = {"__name__": "__main__", "nbserve": nbserve}
    exec(compile("\n" + CELL, "<cell digits>", "exec"), namespace)
    cell = (f"%%serve digits\n{CELL}", "test.ipynb, cell 1")
    store = tmp_path_factory.mktemp("store")
    settings = {"max_batch_size": 2, "response_timeout_s": 7.0}
    return capture(namespace["H"], name="digits", namespace=namespace, settings=settings, cell=cell, store=store).path


def _way_to_the_interpreter(folder: Path) -> dict[str, str]:
    base = Path(sys.base_prefix).resolve()
    private = [parent for parent in (base, *base.parents) if not parent.stat().st_mode & 0o001]
    found = str(private[-1]) if private else ""
    return {"TMP": str(folder / "tmp"), "STAGE": str(folder / "stage"), "BASE": str(base), "PRIVATE": found}


def ask(url: str, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_it_serves_what_the_environment_names_with_its_settings(container: Container) -> None:
    status, said = ask(container.run_file["management_url"], "GET", "/endpoints/digits", token=TOKEN)
    endpoint = json.loads(said)
    assert (status, endpoint["state"]) == (200, "READY")
    settings = endpoint["settings"]
    # The command line comes before the environment, and that before the bundle.
    told = (settings["queue_size"], settings["max_batch_size"], settings["response_timeout_s"])
    assert told == (600, 4, 7.0)
    assert ask(container.run_file["url"], "POST", "/predictions/digits", [1])[1] == b"[1]"
    assert container.health() == (0, "Healthy")
    if container.is_contained:
        assert (container.run_file["pid"], container.server.uids().real) == (1, UID)


def test_every_line_of_its_log_is_an_object(container: Container) -> None:
    keys = {"time", "level", "endpoint", "worker", "message"}
    assert all(line.keys() == keys for line in container.lines())
    assert container.said("NBSERVE_WORKER is no setting; did you mean NBSERVE_WORKERS?")[0]["level"] == "WARNING"
    assert container.said("digits ")[0]["endpoint"] == "digits"


def test_platforms_find_what_they_ask_for(container: Container) -> None:
    url = container.run_file["url"]
    assert ask(url, "GET", "/healthy")[0] == 200
    assert json.loads(ask(url, "POST", "/predict", {"instances": [1, "a"]})[1]) == {"predictions": [1, "a"]}
    assert ask(url, "POST", "/invocations", {"a": 1})[1] == b'{"a":1}'
    assert json.loads(ask(url, "POST", "/v1/models/digits:predict", {"instances": []})[1]) == {"predictions": []}


def test_metrics_are_open_and_nothing_else_is(container: Container) -> None:
    url, management_url = container.metrics_url, container.run_file["management_url"]
    status, body = ask(url, "GET", "/metrics")
    assert status == 200
    assert b'endpoint="digits"' in body
    assert ask(url, "HEAD", "/metrics") == (200, b"")
    assert [ask(url, "GET", path)[0] for path in ("/", "/server", "/predictions/digits")] == [404] * 3
    assert ask(url, "POST", "/metrics", {})[0] == 413
    assert ask(url, "POST", "/metrics")[0] == 405
    assert ask(management_url, "GET", "/metrics")[0] == 401
    assert ask(management_url, "GET", "/metrics", token=TOKEN)[0] == 200


def test_the_token_is_shown_nowhere(container: Container) -> None:
    assert TOKEN not in container.log.read_text()
    everyone = [container.server, *container.server.children(recursive=True)]
    assert len(everyone) >= 3
    assert not any(TOKEN in word for process in everyone for word in process.cmdline())
    # Handlers run in these.
    assert not any("NBSERVE_MANAGEMENT_TOKEN" in process.environ() for process in everyone[1:])


def test_a_bundle_that_cannot_be_written_is_served_as_well(container: Container) -> None:
    if not container.is_contained and os.getuid() == 0:
        assert "CI" not in os.environ, "root can write everywhere, and there are no namespaces here"
        pytest.skip("root can write everywhere, and there are no namespaces here")
    management_url = container.run_file["management_url"]
    before = {path: path.read_bytes() for path in container.bundle.rglob("*") if path.is_file()}
    status, said = ask(management_url, "PATCH", "/endpoints/digits", {"max_batch_size": 9}, TOKEN)
    assert (status, json.loads(said)["settings"]["max_batch_size"]) == (200, 9)
    assert container.said("the settings are not kept in the bundle")
    status, said = ask(management_url, "POST", "/endpoints/digits/predict", {"body": "[7]"}, TOKEN)
    assert (status, json.loads(said)["status"]) == (200, 200)
    assert container.said("a request is not recorded")
    assert {path: path.read_bytes() for path in container.bundle.rglob("*") if path.is_file()} == before


def test_what_a_handler_leaves_behind_is_reaped(container: Container) -> None:
    status, said = ask(container.run_file["url"], "POST", "/predictions/digits", "orphan")
    assert (status, int(said) > 1) == (200, True)
    # It ends with its pipe, and then only the nursery is left.
    wait_until(lambda: len(container.server.children()) == 1, 20)
    assert ask(container.run_file["url"], "POST", "/predictions/digits", 1)[0] == 200


def test_workers_that_lost_their_nursery_are_reaped_and_replaced(container: Container) -> None:
    [nursery] = container.server.children()
    orphans = nursery.children()
    assert len(orphans) == 1
    nursery.kill()
    wait_until(lambda: ask(container.run_file["url"], "GET", "/ping")[0] == 503)
    wait_until(lambda: ask(container.run_file["url"], "GET", "/ping")[0] == 200)
    wait_until(lambda: not container.zombies())
    assert not any(process.is_running() for process in (nursery, *orphans))
    assert ask(container.run_file["url"], "POST", "/predictions/digits", 1)[0] == 200


def test_sigterm_loses_nothing_under_load_and_ends_with_0(container: Container, load: Callable[..., Load]) -> None:
    url = container.run_file["url"]
    children = container.server.children(recursive=True)
    with load(f"{url}/predictions/digits", clients=8) as asking:
        asking.wait_for(200)
        container.server.send_signal(signal.SIGTERM)
        assert container.process.wait(30) == 0
    # Who did not come back for a second finds the connection closed, unread.
    assert set(asking.statuses) <= {200, "ConnectionRefusedError", "RemoteDisconnected"}, asking.statuses
    assert asking.statuses[200] >= 200
    wait_until(lambda: not any(child.is_running() for child in children))
    assert list(container.run.iterdir()) == []
    assert not container.said("Traceback")
