"""A build from beginning to end with a builder that is a script: progress, secret, interrupts, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nbserve.errors import ExportError
from nbserve.export import build as building
from nbserve.export.build import Image, build
from tests.export.plans import make_plan

pytestmark = pytest.mark.process

SIZE = 1_220_000_000
PLAN = make_plan()


class FakeBuilder:
    """A script in place of buildah or docker: notes what it was called with, and builds as `script` says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch
        self.certificate = folder / "company.crt"
        self.certificate.touch()
        self.find_links = "/not/there"
        self._monkeypatch.setattr(building, "_pip", self._pip)

    def becomes(self, name: str, script: str) -> None:
        program = self._folder / name
        inspected = json.dumps([{"Size": SIZE}])
        program.write_text(
            f"""#!/bin/sh
case "$1" in
  build) echo "$@" > {self._folder}/words; {self._copied}
{script}
  ;;
  image) echo '{inspected}' ;;
esac
"""
        )
        program.chmod(0o755)
        self._monkeypatch.setenv("NBSERVE_BUILDER", str(program))

    @property
    def _copied(self) -> str:
        """Keeps the secret and its mode, as it is gone afterwards."""
        secret = r"""$(echo "$*" | sed 's/.*pipconf,src=\([^ ]*\).*/\1/')"""
        return f'cp "{secret}" {self._folder}/secret; stat -c %a "{secret}" > {self._folder}/mode'

    def _pip(self, *words: str) -> str:
        if words == ("config", "list"):
            index = "global.index-url='https://me:pw@pypi.example.com/simple'"
            return f"{index}\nglobal.cert='{self.certificate}'\ninstall.find-links='{self.find_links}'"
        return "torch (2.9.0+cpu)\nAvailable versions: 2.9.0+cpu, 2.8.0"

    def noted(self, name: str) -> str:
        return (self._folder / name).read_text().strip()


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    return FakeBuilder(tmp_path, monkeypatch)


def test_a_build_tells_its_steps_and_gives_the_image(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("podman", "echo 'STEP 1/2: FROM python'; echo noise; echo 'STEP 2/2: COPY bundle /opt' >&2")
    said: list[str] = []
    assert build(tmp_path, PLAN, "digits:1", said.append) == Image("digits:1", SIZE)
    assert said == ["podman builds digits:1", "1/2: FROM python", "2/2: COPY bundle /opt"]
    assert str(Image("digits:1", SIZE)) == "digits:1 (1.22 GB)"


def test_pips_settings_go_along_as_a_secret_and_nowhere_else(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("podman", ":")
    build(tmp_path, PLAN, "digits:1")
    words, secret = builder.noted("words"), builder.noted("secret")
    assert "index-url = https://me:pw@pypi.example.com/simple" in secret
    assert f"cert = {builder.certificate}" in secret
    assert builder.noted("mode") == "600"
    assert "me:pw" not in words
    assert f"--volume={builder.certificate}:{builder.certificate}:ro" in words
    assert "--volume=/not/there" not in words
    assert not Path(words.partition("src=")[2].split()[0]).exists()


def test_docker_gets_no_path_that_its_daemon_does_not_see(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("docker", 'test "$DOCKER_BUILDKIT" = 1 || exit 9')
    (tmp_path / "wheels").mkdir()
    builder.find_links = str(tmp_path / "wheels")
    said: list[str] = []
    build(tmp_path, replace(PLAN, index_url="https://download.pytorch.org/whl/cpu"), "digits:1", said.append)
    assert "cert = /run/secrets/pipcert" in builder.noted("secret")
    assert f"id=pipcert,src={builder.certificate}" in builder.noted("words")
    assert "index-url" in builder.noted("secret")
    assert "find-links" not in builder.noted("secret")
    assert said[-1] == f"docker cannot see what pip's settings name here: {tmp_path}/wheels"
    # torch may have been just there.
    assert "TORCH_INDEX" not in builder.noted("words")


def test_an_index_of_pips_own_that_has_torch_is_taken_before_pytorchs(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("podman", ":")
    said: list[str] = []
    build(tmp_path, replace(PLAN, index_url="https://download.pytorch.org/whl/cpu"), "digits:1", said.append)
    assert "--build-arg=TORCH_INDEX= " in builder.noted("words")
    assert "torch comes from where pip is configured" in said[1]
    for plan in (
        replace(PLAN, index_url="https://torch.example.com/whl"),
        replace(PLAN, index_url="https://download.pytorch.org/whl/cpu", torch="2.7.0"),
        replace(PLAN, index_url="https://download.pytorch.org/whl/cu130", is_gpu=True),
    ):
        build(tmp_path, plan, "digits:1")
        assert "TORCH_INDEX" not in builder.noted("words")


def test_a_failed_build_says_what_the_matter_is(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("podman", "echo 'ERROR: No matching distribution found for weighty==9.9'; exit 125")
    with pytest.raises(ExportError, match=r"digits:1 could not be built: weighty==9\.9 is not on the package index"):
        build(tmp_path, PLAN, "digits:1")


def test_an_interrupt_stops_the_builder_and_what_it_started(builder: FakeBuilder, tmp_path: Path) -> None:
    builder.becomes("podman", "sleep 600 & echo STEP 1/1: $! $$; wait")
    pids: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("1/1"):
            pids.extend(map(int, line.split()[1:]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, PLAN, "digits:1", interrupt)
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def test_a_builder_that_ignores_sigterm_is_killed(
    builder: FakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "STOP_TIME_S", 0.2)
    builder.becomes("podman", "trap '' TERM; echo STEP 1/1: $$; while :; do sleep 1; done")
    pids: list[int] = []

    def interrupt(line: str) -> None:
        if line.startswith("1/1"):
            pids.append(int(line.split()[1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, PLAN, "digits:1", interrupt)
    assert not psutil.pid_exists(pids[0])


def test_a_real_sigint_while_the_builder_is_silent_stops_it(
    builder: FakeBuilder, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """As Jupyter interrupts a kernel: the builder prints nothing, and this process waits for it."""
    builder.becomes("podman", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    started = tmp_path / "pid"

    def interrupt() -> None:
        wait_until(lambda: started.exists() and started.read_text().strip())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, PLAN, "digits:1")
    thread.join()
    assert not psutil.pid_exists(int(started.read_text()))


def test_an_image_that_nobody_finds_is_an_error(
    builder: FakeBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.becomes("podman", ":")
    answer = subprocess.CompletedProcess((), 125, "", "no such image\n")
    monkeypatch.setattr(building, "ask", lambda *_: answer)
    with pytest.raises(ExportError, match="digits:1 was built, but podman does not find it: no such image"):
        build(tmp_path, PLAN, "digits:1")
