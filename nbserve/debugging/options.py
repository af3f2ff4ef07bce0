"""How to get into a worker, and which of the ways go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from nbserve.errors import DebugError

SCRIPT_WAIT_S = 60.0

# way in -> the options that go with it, beside `who`
GOES_WITH = {
    "last_error": {"worker", "commands"},
    "replay": {"at", "condition", "commands", "wait_s"},
    "interrupt": {"worker", "commands", "wait_s"},
    "port": {"worker"},
}


@dataclass(frozen=True)
class DebugOptions:
    """How to get into a worker, in the words of `Endpoint.debug`. Raises DebugError for what cannot go together."""

    at: str | None = None
    condition: str | None = None
    request: bytes | None = None
    content_type: str | None = None
    last_error: bool = False
    replay: bool = False
    interrupt: bool = False
    worker: int | None = None
    commands: Sequence[str] | None = None
    port: int | None = None
    repeat: bool = False
    wait_s: float | None = None
    who: str | None = None

    def __post_init__(self) -> None:
        given = [field.name for field in fields(self) if self._is_given(field.name)]
        for way, friends in GOES_WITH.items():
            strangers = [name for name in given if name not in (way, "who", *friends)]
            if way in given and strangers:
                raise DebugError(f"{_word(way)} and {_word(strangers[0])} do not go together")
        if self.condition is not None and not (self.at is not None or self.request is not None or self.replay):
            raise DebugError("a condition needs a place to check it at: give --at too")
        if self.content_type is not None and self.request is None:
            raise DebugError("--content-type is about a --request, and there is none")
        if self.repeat and self.request is not None:
            raise DebugError("--repeat and --request do not go together: a request is sent once")

    def _is_given(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False

    @property
    def way(self) -> str:
        """The method of Debugging that this asks for."""
        for way in GOES_WITH:
            if self._is_given(way):
                return way
        return "stop" if self.at is not None or self.request is not None else "attach"

    @property
    def limit_s(self) -> float | None:
        """How long a stop may take to come: scripts do not wait forever."""
        return SCRIPT_WAIT_S if self.wait_s is None and self.commands is not None else self.wait_s


def _word(name: str) -> str:
    return "--if" if name == "condition" else f"--{name.replace('_s', '').replace('_', '-')}"
