"""Debugging a live worker from outside, by way of its agent's socket. Runs in the kernel and the CLI."""

from __future__ import annotations

from nbserve.debugging.console import Console, split_commands
from nbserve.debugging.options import DebugOptions
from nbserve.debugging.session import where
from nbserve.debugging.ways import debug

__all__ = ["Console", "DebugOptions", "debug", "split_commands", "where"]
