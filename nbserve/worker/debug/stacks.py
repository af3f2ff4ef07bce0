"""The stacks of a worker's threads, and which of their frames are the user's. Runs in the worker."""

from __future__ import annotations

import bdb
import cmd
import linecache
import os
import pdb
import runpy
import sys
import threading
import traceback
import types
from pathlib import Path

import nbserve
from nbserve.worker import tracebacks

_PACKAGE = Path(nbserve.__file__).parent
_AGENT = str(_PACKAGE / "worker" / "debug") + "/"
_HANDLER_BASE = str(_PACKAGE / "handler.py")
_STANDARD_LIBRARY = str(Path(os.__file__).parent) + "/"
_DEBUGGERS = {module.__file__ for module in (bdb, cmd, pdb, runpy)}
_INSTALLED = ("/site-packages/", "/dist-packages/")


def is_ours(filename: str) -> bool:
    """Whether a file is nbserve's, a debugger's or the import system's; the handlers' default methods are not."""
    if filename == _HANDLER_BASE:
        return False
    return tracebacks.is_ours(filename) or filename in _DEBUGGERS or "/debugpy/" in filename


def is_user_code(filename: str) -> bool:
    """Whether somebody who serves a cell wrote it: neither nbserve's, nor the standard library's, nor installed."""
    if is_ours(filename) or filename.startswith("<") or filename == _HANDLER_BASE:
        return False
    return not is_standard(filename) and not any(folder in filename for folder in _INSTALLED)


def cell_labels() -> list[str]:
    """The labels of the cells: linecache holds their lines, and no file has that name."""
    named = [(name, entry) for name, entry in list(linecache.cache.items()) if not name.startswith(("<", "/"))]
    return [name for name, entry in named if len(entry) == 4 and entry[1] is None]


def innermost_file(frame: types.FrameType) -> str:
    """The file of the innermost frame that is not the standard library's: who took a lock or waits, say."""
    files = [each.f_code.co_filename for each, _ in traceback.walk_stack(frame)]
    return next((file for file in files if not is_standard(file)), files[0])


def is_standard(filename: str) -> bool:
    """Whether it is a file of Python's standard library."""
    return filename.startswith(_STANDARD_LIBRARY) and not any(folder in filename for folder in _INSTALLED)


def shown_file(filename: str) -> str:
    """A file's name as people know it: a cell's label, else the path less the folder where packages or modules lie."""
    if not filename.startswith("/"):
        return filename
    folders = (*_INSTALLED, _STANDARD_LIBRARY, str(_PACKAGE.parent) + "/", "/lib/")
    folder = next((folder for folder in folders if folder in filename), "/")
    return filename.rpartition(folder)[2]


def place_of(frame: types.FrameType) -> tuple[str, int, str]:
    """File, line and function of the innermost frame that the user wrote, else of a default method, else of any."""
    frames = [each for each, _ in traceback.walk_stack(frame)]
    kinds = (is_user_code, lambda file: file == _HANDLER_BASE, lambda file: not is_ours(file))
    found = (each for is_kind in kinds for each in frames if is_kind(each.f_code.co_filename))
    chosen = next(found, frame)
    return chosen.f_code.co_filename, chosen.f_lineno, chosen.f_code.co_name


def all_threads() -> str:
    """What each thread does now, the main one first, most recent call last, without nbserve's frames and threads."""
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    parts = [f"main thread, which runs the handler:\n{_main_stack(frames[main])}"] if main in frames else []
    for ident, frame in frames.items():
        if ident != main and not _is_agents(frame):
            parts.append(f"thread {names.get(ident, ident)}:\n{_stack(frame)}")
    return "\n".join(parts)


def _main_stack(frame: types.FrameType) -> str:
    return _stack(frame) or "  waits for requests\n"


def _stack(frame: types.FrameType) -> str:
    shown = [each for each in traceback.extract_stack(frame) if not _is_noise(each.filename)]
    return "".join(traceback.format_list(shown))


def _is_noise(filename: str) -> bool:
    return is_ours(filename) or filename == threading.__file__


def _is_agents(frame: types.FrameType) -> bool:
    """Whether the agent or an editor's debugger started the thread: then its first frame of its own is theirs."""
    files = [each.f_code.co_filename for each, _ in traceback.walk_stack(frame)]
    started = next((file for file in reversed(files) if file != threading.__file__), "")
    return started.startswith(_AGENT) or "/debugpy/" in started
