"""The programs that build images: which one is here and works, and how each is called."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nbserve.errors import ExportError
from nbserve.export.pipsettings import PipSettings

NAMES = ("docker", "podman", "buildah")
PROBE_LIMIT_S = 30.0
_PROBES = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info", "--format", "{{.Version.Version}}"),
    "buildah": ("info",),
}


@dataclass(frozen=True)
class Builder:
    """One of docker, podman and buildah; `command` may hold options that come before its own words."""

    name: str
    command: tuple[str, ...]

    @property
    def can_mount(self) -> bool:
        """Whether a build sees files of this machine besides the folder: Docker's has only the secret."""
        return self.name != "docker"

    def build(
        self,
        folder: Path,
        tag: str,
        secret: Path,
        pip: PipSettings,
        arguments: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> list[str]:
        """The command line that builds `folder`."""
        words = [*self.command, "build", "--tag", tag, "--secret", f"id=pipconf,src={secret}"]
        words += [f"--build-arg={name}={value}" for name, value in arguments.items()]
        if self.name == "docker":
            words += ["--secret", f"id=pipcert,src={pip.certificate}"] if pip.certificate else []
            return [*words, "--progress", "plain", str(folder)]
        # OCI has no place for a health check. Without --force-rm a failed build would leave a container mounted.
        words += ["--format", "docker", "--layers", "--force-rm"]
        if "BUILDAH_ISOLATION" not in environ:
            # The one that asks nothing of the machine: it works in a container and in CI, too.
            words += ["--isolation", "chroot"]
        words += [f"--volume={path}:{path}:ro" for path in pip.paths]
        return [*words, str(folder)]

    def inspect(self, tag: str) -> list[str]:
        """The command line whose output `size_of` understands."""
        if self.name == "buildah":
            return [*self.command, "inspect", "--type", "image", tag]
        return [*self.command, "image", "inspect", tag]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {**environ, "DOCKER_BUILDKIT": "1"} if self.name == "docker" else dict(environ)


def find_builder(environ: Mapping[str, str] = os.environ) -> Builder:
    """The first that works; NBSERVE_BUILDER names another one, with options of its own where it needs them."""
    if named := environ.get("NBSERVE_BUILDER", "").strip():
        return _named(named, environ)
    reasons = []
    for name in NAMES:
        if path := shutil.which(name, path=environ.get("PATH")):
            builder = Builder(name, (path,))
            if (reason := _why_not(builder, environ)) is None:
                return builder
            reasons.append(f"{name}: {reason}")
    raise ExportError(no_builder(reasons))


def no_builder(reasons: Sequence[str]) -> str:
    """What to do where none works, and why each that is here does not."""
    install = "install docker, podman or buildah (on Debian and Ubuntu: apt-get install buildah)"
    if not reasons:
        return f"nothing here builds images: {install}, or build the exported folder elsewhere"
    said = " ".join(reasons).lower()
    advice = f"start it, or {install}" if "cannot connect" in said else install
    if "docker" in said and "permission denied" in said:
        advice = f"add yourself to the group docker and log in again, or {install}"
    return "\n".join(["nothing here builds images:", *(f"    {reason}" for reason in reasons), advice])


def size_of(inspected: str) -> int:
    """Bytes of an image, unpacked. buildah tells no sum, but the layers'."""
    about = json.loads(inspected)
    if isinstance(about, list):
        return int(about[0]["Size"])
    return sum(int(layer["size"]) for layer in json.loads(about["Manifest"])["layers"])


def ask(
    command: Sequence[str], environ: Mapping[str, str], limit_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that only tells something."""
    return subprocess.run(
        command,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )


def _named(named: str, environ: Mapping[str, str]) -> Builder:
    command = shlex.split(named)
    name = Path(command[0]).name
    if name not in NAMES:
        raise ExportError(f"NBSERVE_BUILDER is {named!r}; it can be {', '.join(NAMES)}, with options after the name")
    path = shutil.which(command[0], path=environ.get("PATH"))
    if path is None:
        raise ExportError(f"NBSERVE_BUILDER names {command[0]}, which is not installed here")
    builder = Builder(name, (path, *command[1:]))
    if (reason := _why_not(builder, environ)) is not None:
        raise ExportError(f"{name}, which NBSERVE_BUILDER names, does not work here: {reason}")
    return builder


def _why_not(builder: Builder, environ: Mapping[str, str]) -> str | None:
    """What is wrong with a builder that is installed: its daemon is down, its storage belongs to somebody else, ..."""
    command = [*builder.command, *_PROBES[builder.name]]
    try:
        asked = ask(command, environ, PROBE_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"`{shlex.join(command)}` did not answer within {PROBE_LIMIT_S:.0f} s"
    except OSError as error:
        return str(error)
    if asked.returncode == 0:
        return None
    said = [line for line in (asked.stderr or asked.stdout).splitlines() if line.strip()]
    return said[-1].strip() if said else f"`{shlex.join(command)}` ended with {asked.returncode}"
