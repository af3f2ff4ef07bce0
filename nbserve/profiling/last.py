"""What the last profile of each endpoint found, so that an A/B can name a finding by its number. Kernel or terminal."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from nbserve.recording import Span
from nbserve.trace.model import Finding

MOST_CLIENTS = 64


@dataclass(frozen=True)
class Diagnosis:
    """Findings, and how many clients asked at once while they were made."""

    findings: Sequence[Finding]
    clients: int


def keep(server_id: str, name: str, diagnosis: Diagnosis) -> None:
    _known()[server_id, name] = diagnosis


def find(server_id: str, name: str) -> Diagnosis | None:
    return _known().get((server_id, name))


@functools.cache
def _known() -> dict[tuple[str, str], Diagnosis]:
    """Those of this process."""
    return {}


def clients(spans: Sequence[Span]) -> int:
    """How many of these requests were on their way at once, on average: Little's law."""
    if not spans:
        return 1
    began_ms = min(span["received_ns"] for span in spans) / 1e6
    ended_ms = max(span["received_ns"] / 1e6 + span["total_ms"] for span in spans)
    busy_ms = sum(span["total_ms"] for span in spans)
    return min(MOST_CLIENTS, max(1, round(busy_ms / max(1e-6, ended_ms - began_ms))))
