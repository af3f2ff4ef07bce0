"""`nbserve profile` in a terminal: what is going on to standard error, what came of it as text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nbserve.errors import ProfileError
from nbserve.profiling import ab, session, summary
from nbserve.profiling.options import AbOptions, ProfileOptions
from nbserve.profiling.profile import check_path

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint


class Progress:
    """One line that changes, and only on a terminal."""

    def __enter__(self) -> Progress:
        self._is_shown = sys.stderr.isatty()
        return self

    def __exit__(self, *exc: object) -> None:
        self("")

    def __call__(self, text: str) -> None:
        if self._is_shown:
            # Back to the start of the line, and clear it.
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def record(endpoint: Endpoint, options: ProfileOptions, file: str | None) -> str:
    """Record and save; gives the summary."""
    if file is not None:
        # Nobody wants to hear it after the recording.
        check_path(Path(file))
    with Progress() as progress:
        profile = session.record(endpoint, options, progress)
    text = summary.text(profile, "nbserve profile")
    return text if file is None else f"{text}\nsaved: {profile.save(file)}"


def compare(endpoint: Endpoint, fix: str, options: AbOptions, file: str | None) -> str:
    if file is not None:
        raise ProfileError("-o is about a recording: --ab leaves nothing to save")
    with Progress() as progress:
        return repr(ab.compare(endpoint, fix, options, progress))
