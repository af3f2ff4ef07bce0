"""A profile as programs and people get it: requests, operators, findings, and one picture of them."""

from __future__ import annotations

import secrets
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from nbserve.errors import ProfileError
from nbserve.load.job import Outcome
from nbserve.profiling import last, summary
from nbserve.profiling.peak import peak_gflops
from nbserve.recording import Recording, Span
from nbserve.trace import chrome, diagnose, ops, pack, stitch
from nbserve.trace.model import Finding, OpRow, Timeline

# A notebook keeps what it shows: about 3 MB. The page that `save` writes has all.
INLINE_EVENTS = 250_000


class Profile:
    """What was recorded, on one clock. `requests` are the spans of requests, `ops` are ordered by self time.

    `findings` say what to do, the most useful first. `load` is what came of requests that were sent for the recording.
    """

    def __init__(self, timeline: Timeline, findings: Sequence[Finding] = (), load: Outcome | None = None) -> None:
        self.timeline = timeline
        self.load = load
        self.requests: list[Span] = list(timeline.spans)
        self.ops: list[OpRow] = ops.table(timeline)
        self.findings: list[Finding] = list(findings)

    @classmethod
    def of(cls, recording: Recording, folder: Path, server_id: str, load: Outcome | None) -> Profile:
        """Read a recording whose files lie in `folder`, which goes with the profile."""
        try:
            timeline = stitch.timeline(recording)
            failing = failing_requests(load, len(timeline.spans))
            profile = cls(timeline, failing or diagnose.findings(timeline, peak_gflops=peak_gflops), load)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(profile, shutil.rmtree, folder, ignore_errors=True)
        last.keep(server_id, profile.name, last.Diagnosis(profile.findings, last.clients(profile.requests)))
        return profile

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.timeline.recording["endpoint"]

    @property
    def text(self) -> str:
        """Where the time goes, what to do about it, and the costliest operators."""
        return summary.text(self)

    def __repr__(self) -> str:
        return self.text

    def save(self, path: str | Path) -> Path:
        """Write a Chrome trace (.json, .json.gz), which Perfetto opens, or the interactive page (.html)."""
        path = check_path(Path(path).expanduser())
        _write(path, self._save_page if path.suffix == ".html" else self._save_trace)
        return path

    def _save_trace(self, path: Path) -> None:
        chrome.write(self.timeline, path)

    def _save_page(self, path: Path) -> None:
        from nbserve.trace import page

        block = pack.pack(self.timeline, self.findings)
        path.write_text(page.document(block, title=self.name), encoding="utf-8")

    def _repr_html_(self) -> str:
        from nbserve.trace import page

        return page.page(pack.pack(self.timeline, self.findings, INLINE_EVENTS), title=self.name)

    def picture(self) -> bytes:
        """The timeline as a PNG, for readers without scripts."""
        from nbserve.trace import picture

        return picture.png(self.timeline, self.findings)


def failing_requests(load: Outcome | None, recorded: int) -> list[Finding]:
    """One finding if all requests were sent for the recording and failed: how those take their time helps nobody."""
    failed = 0 if load is None else sum(load["errors"].values())
    if load is None or not failed or failed < max(load["requests"], recorded):
        return []
    errors = ", ".join(f"{number} times {error}" for error, number in load["errors"].items())
    return [
        Finding(
            name="failing-requests",
            figure=f"{failed} of {load['requests']} requests sent for the recording failed ({errors})",
            value=1.0,
            threshold=1.0,
            why="Times of requests that fail say nothing about those that are answered.",
            fix="Give one that the handler takes (--request JSON).",
            expected_gain=1.0,
        )
    ]


def check_path(path: Path) -> Path:
    """The path, if a profile can be saved as that; raises ProfileError."""
    if not path.name.endswith((".html", ".json", ".json.gz")):
        raise ProfileError(f"{path} ends in none of .json, .json.gz (Chrome trace) and .html (page)")
    if not path.parent.is_dir():
        raise ProfileError(f"cannot write {path}: there is no folder {path.parent}")
    return path


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside it, then put it in place: no reader and no failure leaves half a file."""
    # The ending decides how it is written.
    new = path.with_name(f".new-{secrets.token_hex(4)}-{path.name}")
    try:
        write(new)
        new.replace(path)
    except OSError as error:
        raise ProfileError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        new.unlink(missing_ok=True)
