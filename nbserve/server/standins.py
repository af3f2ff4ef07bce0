"""When does a version need a stand-in, and how long does a debugger keep a worker? Pure; server process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Mode = Literal["attach", "stop", "interrupt", "post_mortem", "replay", "debugpy"]

ATTACH_WITHIN_S = 15.0
LINGER_S = 3.0


class Standing(NamedTuple):
    """A configured worker: does it take batches, and is it a debugger's, held or soon to be held?"""

    is_serving: bool
    is_engaged: bool


def is_standin_wanted(workers: Iterable[Standing]) -> bool:
    """Whether somebody must serve because the only ones who could are engaged."""
    standings = list(workers)
    is_one_engaged = any(standing.is_engaged for standing in standings)
    return is_one_engaged and not any(standing.is_serving and not standing.is_engaged for standing in standings)


@dataclass(frozen=True)
class Wish:
    """A debugger asked for this worker. It has until `expires_ns` to attach (None: it was not answered yet).

    Once it was attached, the wish lasts until it left and the worker is not held any more.
    """

    mode: Mode
    expires_ns: int | None = None
    was_attached: bool = False

    @property
    def stops(self) -> bool:
        """Whether requests are to meet this debugger."""
        return self.mode in ("stop", "debugpy")

    def is_over(self, is_attached: bool, is_held: bool, now_ns: int) -> bool:
        if is_attached or is_held:
            return False
        return self.was_attached or (self.expires_ns is not None and now_ns >= self.expires_ns)
