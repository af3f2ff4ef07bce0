"""What the exported copies of local modules are beside the files they came from. Runs in the kernel or the CLI."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_GIT_LIMIT_S = 10.0


def notes(library: Path) -> Iterator[str]:
    """A sentence for each module in a bundle's lib/ that was edited since it was served, or that git does not have.

    What was served is what is exported, so that none of this is an error; modules that are found nowhere are passed
    over.
    """
    for copy in sorted(library.iterdir()) if library.is_dir() else ():
        original = _original(copy)
        if original is None:
            continue
        if edited := next(_differing(copy, original), None):
            yield (
                f"{edited} was edited after the cell was served: it is exported as it was then; serve the cell again "
                "to export it as it is now"
            )
        elif state := _git_state(original):
            yield f"{original} {state}: what is exported is in no commit"


def _original(copy: Path) -> Path | None:
    """Where Python would import it from."""
    places = (Path(place or ".") for place in (*sys.path, ""))
    return next((place / copy.name for place in places if _is_other(place / copy.name, copy)), None)


def _is_other(path: Path, copy: Path) -> bool:
    return path.exists() and path.is_dir() == copy.is_dir() and not path.samefile(copy)


def _differing(copy: Path, original: Path) -> Iterator[Path]:
    for file in sorted(copy.rglob("*")) if copy.is_dir() else [copy]:
        if file.is_file() and "__pycache__" not in file.parts:
            other = original / file.relative_to(copy) if copy.is_dir() else original
            if not other.is_file() or other.read_bytes() != file.read_bytes():
                yield other


def _git_state(path: Path) -> str | None:
    """What git says of a file or folder; None where there is no git, no repository, or nothing to say."""
    command = ["git", "-C", str(path.parent), "status", "--porcelain", "--ignored", "--", path.name]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_GIT_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in asked.stdout.splitlines() if not line.endswith("__pycache__/")]
    if asked.returncode or not lines:
        return None
    is_known = any(line[:2] not in ("??", "!!") for line in lines)
    return "has changes that are not committed" if is_known else "is not known to git"
