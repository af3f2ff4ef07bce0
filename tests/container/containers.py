"""Containers of a test: run, asked, stopped, and gone when the test is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.container import standin

# As compose.yaml and deployment.yaml run it: nothing to write to but /tmp, and no rights.
HARDENED = ("--read-only", "--tmpfs=/tmp:exec,mode=1777", "--cap-drop=all", "--security-opt=no-new-privileges")


class Engine:
    """podman, in the environment that the stand-in made."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def __call__(self, *words: str, check: bool = True, limit_s: float = 120) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["podman", *words], env=self.environment, capture_output=True, text=True, timeout=limit_s, check=False
        )
        assert not check or done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done

    def images(self) -> set[str]:
        return set(self("images", "--all", "--quiet", "--no-trunc").stdout.split())

    def left(self) -> list[str]:
        """What a test run left: containers, their monitors, mounts."""
        folder = str(standin.folder())
        containers = self("ps", "--all", "--quiet").stdout.split()
        processes = [
            str(process.info) for process in psutil.process_iter(["pid", "cmdline"]) if _is_monitor(process, folder)
        ]
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if f" {folder}/" in line]
        return [*containers, *processes, *mounts]


def _is_monitor(process: psutil.Process, folder: str) -> bool:
    words = process.info["cmdline"] or [""]
    return Path(words[0]).name == "conmon" and any(folder in word for word in words)


class Container:
    """One container of an image."""

    def __init__(
        self,
        engine: Engine,
        image: str,
        words: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        network: str = "host",
        options: Sequence[str] = HARDENED,
    ) -> None:
        variables = [f"--env={name}={value}" for name, value in (environ or {}).items()]
        self._engine = engine
        self.id = engine(
            "run", "--detach", "--no-healthcheck", f"--network={network}", *options, *variables, image, *words
        ).stdout.strip()
        # Asked now: podman forgets it when the container ends.
        self.pid = int(self.inspect()["State"]["Pid"])

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(self._engine("inspect", self.id).stdout)[0])

    def execute(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._engine("exec", self.id, *words, check=check)

    def from_within(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of this machine in the container's network."""
        command = ["nsenter", f"--target={self.pid}", "--net", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done

    @property
    def is_healthy(self) -> bool:
        """As the image's HEALTHCHECK asks."""
        return self.execute("nbserve", "health", check=False).returncode == 0

    @property
    def is_running(self) -> bool:
        return bool(self.inspect()["State"]["Running"])

    def logs(self) -> str:
        done = self._engine("logs", self.id)
        return done.stdout + done.stderr

    def signal(self, name: str) -> None:
        self._engine("kill", f"--signal={name}", self.id)

    def exit_code(self) -> int:
        """Of a container that has ended. `podman wait` would notice late, as it looks for what runc has forgotten."""
        state = self.inspect()["State"]
        assert not state["Running"], self.logs()
        return int(state["ExitCode"])

    def remove(self) -> None:
        self._engine("rm", "--force", "--time=10", self.id)
