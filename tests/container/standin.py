"""What a machine without Docker and without a registry needs to build and run images, made from Debian's packages.

`python -m tests.container.standin` installs podman and buildah (as root) and makes the image that stands in for Docker
Hub's Python; with words behind `--` it then runs them as a command, in an environment where podman and buildah find it.
All lies in one folder, which `--remove` and `make clean` remove.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

IMAGE = "docker.io/library/python:3.11-slim-bookworm"
SUITE = "bookworm"
# What must be there, and the package that has it.
TOOLS = {"podman": "podman", "buildah": "buildah", "runc": "runc", "conmon": "conmon", "mmdebstrap": "mmdebstrap"}
# Docker Hub's image has its Python in /usr/local, and lets pip install into it.
HOOKS = (
    'ln -s /usr/bin/python3.11 "$1/usr/local/bin/python"',
    'ln -s /usr/bin/python3.11 "$1/usr/local/bin/python3"',
    'rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED',
)
INCLUDE = "python3.11,python3-pip,python3-venv,ca-certificates"
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))

# crun wants one hierarchy of control groups, and systemd is not everywhere.
CONTAINERS_CONF = """\
[containers]
netns = "host"
log_driver = "k8s-file"
default_ulimits = ["nofile=8192:8192", "nproc=8192:8192"]

[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
static_dir = "{folder}/libpod"
tmp_dir = "{folder}/run/libpod"
volume_path = "{folder}/volumes"
"""
STORAGE_CONF = """\
[storage]
driver = "{driver}"
graphroot = "{folder}/storage"
runroot = "{folder}/run/storage"
"""


class NotHere(Exception):
    """This machine cannot build images, and how it could."""


def folder() -> Path:
    """Outside the checkout, so that a new clone finds the base image of the last."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nbserve-containers"


def prepare(tell: Callable[[str], None] = lambda _: None) -> dict[str, str]:
    """The environment in which podman and buildah work and have the base image; what is missing is made first."""
    install_tools(tell)
    environment = _environment(_driver(tell))
    if _succeeds(["podman", "image", "exists", IMAGE], environment):
        return environment
    _make_base(environment, tell)
    return environment


def install_tools(tell: Callable[[str], None]) -> None:
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotHere(f"install {', '.join(missing)}, and run this as root")
    tell(f"installs {' '.join(missing)}")
    _from_debian(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing])


def _from_debian(command: Sequence[str]) -> None:
    """A new machine has no list of packages, or an old one."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if not _succeeds(command, quiet):
        _run(["apt-get", "update", "-q"], quiet)
        _run(command, quiet)


def _environment(driver: str) -> dict[str, str]:
    """Two files of settings, and the variables that name them, are all that podman and buildah need."""
    home = folder()
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    (home / "containers.conf").write_text(CONTAINERS_CONF.format(folder=home))
    (home / "storage.conf").write_text(STORAGE_CONF.format(folder=home, driver=driver))
    return {
        **os.environ,
        "CONTAINERS_CONF": str(home / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        # buildah keeps what `--mount=type=cache` caches below it.
        "TMPDIR": str(home / "tmp"),
    }


def _driver(tell: Callable[[str], None]) -> str:
    """overlay shares layers; vfs copies them, which works everywhere."""
    kept = folder() / "driver"
    if not kept.exists():
        probe = folder() / "probe"
        command = [
            "buildah",
            "--storage-driver",
            "overlay",
            "--root",
            f"{probe}/root",
            "--runroot",
            f"{probe}/run",
            "info",
        ]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("overlay" if _succeeds(command, os.environ) else "vfs")
        shutil.rmtree(probe, ignore_errors=True)
        tell(f"keeps layers with {kept.read_text()}")
    return kept.read_text()


def _make_base(environment: Mapping[str, str], tell: Callable[[str], None]) -> None:
    """A minimal Debian with its Python, under the name of the image that an exported Dockerfile begins with."""
    archive = folder() / "tmp" / "base.tar"
    tell(f"makes a stand-in for {IMAGE} from Debian's packages; it is kept in {folder()}")
    began = time.monotonic()
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    try:
        _run(
            ["mmdebstrap", "--variant=minbase", f"--include={INCLUDE}", *hooks, SUITE, str(archive), *_mirror()],
            environment,
        )
        _run(["podman", "import", "--change", "CMD python3", str(archive), IMAGE], environment)
        tell(f"{archive.stat().st_size / 1e6:.0f} MB, made in {time.monotonic() - began:.0f} s")
    finally:
        archive.unlink(missing_ok=True)


def _mirror() -> list[str]:
    """Where this machine's own packages come from, if they are of the same release."""
    release = Path("/etc/os-release")
    if not release.exists() or f"VERSION_CODENAME={SUITE}" not in release.read_text():
        return []
    return [str(path) for path in SOURCES if path.exists()][:1]


def _succeeds(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    return _ran(command, environment).returncode == 0


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    ran = _ran(command, environment)
    if ran.returncode:
        raise NotHere(f"{command[0]} failed:\n{(ran.stderr or ran.stdout)[-2000:]}")


def _ran(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def remove() -> None:
    """All of it, and first what still runs."""
    if folder().exists():
        if shutil.which("podman"):
            _ran(["podman", "rm", "--all", "--force"], _environment(_driver(_tell)))
        shutil.rmtree(folder())


def main(words: Sequence[str]) -> int:
    if words == ["--remove"]:
        remove()
        return 0
    try:
        environment = prepare(_tell)
    except NotHere as error:
        _tell(str(error))
        return 1
    command = list(words[words.index("--") + 1 :]) if "--" in words else []
    return subprocess.run(command, env=environment, check=False).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
