"""`nbserve tune` in a terminal: what is going on to standard error, what came of it as text or JSON."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from nbserve.profiling.terminal import Progress
from nbserve.tune import session, summary
from nbserve.tune.options import TuneOptions
from nbserve.tune.state import State

if TYPE_CHECKING:
    from nbserve.verbs import Endpoint

INTERRUPTED = 130


def tune(endpoint: Endpoint, options: TuneOptions, is_json: bool) -> tuple[str, int]:
    """Tune; gives what to print and the exit code."""
    with Progress() as progress:

        def tell(state: State) -> None:
            # A line that wraps could not be written over.
            progress(summary.progress(state)[: shutil.get_terminal_size().columns - 1])

        tuned = session.tune(endpoint, options, tell)
    text = json.dumps(tuned.as_object(), indent=2) if is_json else summary.text(tuned, "nbserve")
    return text, INTERRUPTED if tuned.is_interrupted else 0
