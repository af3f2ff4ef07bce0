"""Held workers in words, for cards, tables and notes. Pure; runs in the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

_REASONS = {"exception": ", about to fail", "interrupt": ", interrupted"}


def place(held: Mapping[str, Any]) -> str:
    """`worker 0 at quickstart.ipynb, cell 3, line 12 in preprocess, request ab-1`"""
    requests = ", ".join(held["request_ids"])
    told = f"worker {held['worker']} at {held['file']}, line {held['line']} in {held['function']}"
    told += _REASONS.get(held["reason"], "")
    return told + (f", request{'s' * (len(held['request_ids']) > 1)} {requests}" if requests else "")


def sentence(name: str, held: Mapping[str, Any], now_s: float) -> str:
    """The place, and who has the worker or how to attach to it."""
    if held["debugger"]:
        return f"{place(held)}; debugged by {held['debugger']}"
    return f"{place(held)}; %serve debug {name} attaches{_goes_on(held, now_s)}"


def of(endpoint: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The holds in an endpoint's status object."""
    return [worker["held"] for worker in endpoint["workers"] if worker.get("held")]


def _goes_on(held: Mapping[str, Any], now_s: float) -> str:
    # A clock time stays true in a card that is not drawn again.
    if held["goes_on_in_s"] is None:
        return ""
    return f", else it goes on by itself at {time.strftime('%H:%M:%S', time.localtime(now_s + held['goes_on_in_s']))}"
