"""Makes the peers' environments: one under .venvs/ for each file in peers/, all on one base that has torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = Path(__file__).resolve().parent / "peers"
ENVIRONMENTS = ROOT / ".venvs"
DEBIAN_PACKAGES = {"java": "openjdk-17-jre-headless", "wrk": "wrk"}


class Missing(Exception):
    """A peer cannot be had on this machine; the text says why and goes into its rows."""


def python_of(environment: str) -> str:
    """The interpreter of an environment; makes or refreshes the environment when its pins changed."""
    python = ENVIRONMENTS / environment / "bin" / "python"
    pins = PINS / f"{environment}.txt"
    stamp = ENVIRONMENTS / environment / "pins.sha256"
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    base = None if environment == "base" else python_of("base")
    print(f"making {python.parent.parent.relative_to(ROOT)} from {pins.relative_to(ROOT)}", flush=True)
    _must_run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENTS / environment)])
    if base:
        _see_base(environment)
    _must_run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(pins)])
    stamp.write_text(wanted)
    return str(python)


def require_program(name: str) -> str:
    """The path of `java` or `wrk`, installed with apt-get when this is root on Debian."""
    path = shutil.which(name)
    if path is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {DEBIAN_PACKAGES[name]} for {name}", flush=True)
        _must_run(["apt-get", "update", "-qq"])
        _must_run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", DEBIAN_PACKAGES[name]])
        path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed (Debian: {DEBIAN_PACKAGES[name]})")
    return path


def _see_base(environment: str) -> None:
    """The peer's own packages come first on sys.path, so a peer may still pin another version of something."""
    site_packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    link = ENVIRONMENTS / environment / site_packages / "zz_benchmark_base.pth"
    link.write_text(f"{ENVIRONMENTS / 'base' / site_packages}\n")


def _must_run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        raise Missing(f"{' '.join(command[:5])} ... failed: {last[0]}")
