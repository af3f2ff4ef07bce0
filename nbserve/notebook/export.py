"""`%serve export`: the verb's line, its progress, and how an Exported is shown. Runs in the kernel."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from nbserve.errors import NbserveError
from nbserve.export.options import ExportOptions
from nbserve.notebook import options
from nbserve.notebook.progress import ProgressLine
from nbserve.notebook.status import Shown, facts
from nbserve.options import EXPORT_HELP, add_export_options, export_options_of
from nbserve.verbs import Endpoint

if TYPE_CHECKING:
    from nbserve.export.session import Exported

# Its own name, so that showing it is known before anything imports it.
EXPORTED = ("nbserve.export.session", "Exported")

HELP = f"""\
{EXPORT_HELP}

  %serve export digits digits-export                   the folder, beside this notebook
  %serve export digits digits-export --build digits:1  ... and the image, with docker, podman or buildah
  e = %serve export digits digits-export               e.path, e.files, e.proven, e.image
In a terminal `nbserve export NAME DIR` takes the same options, and `nbserve
export NOTEBOOK.ipynb DIR` runs a whole notebook first."""


def parser() -> options.Parser:
    parser = options.verb_parser(
        "export",
        "Write a folder that runs as a container, on Kubernetes and on Ray Serve.",
        usage="%%serve export NAME DIR [options]",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the endpoint")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder to write, new or of an earlier export")
    add_export_options(parser)
    return parser


def asked_of(parser: options.Parser, line: str) -> tuple[str, Path, ExportOptions]:
    """The endpoint's name, the folder, and how the line wants it exported."""
    values = parser.parse(options.split(line))
    return values.name, values.directory.expanduser(), export_options_of(values)


def run(shell: InteractiveShell, endpoint: Endpoint, directory: Path, asked: ExportOptions) -> Exported:
    """Export, and show what is going on; an interrupt leaves nothing of it."""
    progress = ProgressLine(shell, endpoint.name)
    try:
        exported = endpoint.export(directory, **asdict(asked), on_progress=progress)
    except KeyboardInterrupt:
        progress("interrupted: nothing was exported")
        raise
    except NbserveError:
        progress("not exported")
        raise
    progress(f"exported {exported.files} files to {near(exported.path)}")
    return exported


def card(exported: Exported) -> Shown:
    """What was written, what was proven, and what to do with it; paths as they are from the notebook."""
    from nbserve.export.folder import size_text

    folder = near(exported.path)
    rows = [
        ("folder", folder),
        ("size", f"{exported.files} files, {size_text(exported.size_bytes)}"),
        ("proof", exported.proof),
        *([("image", f"{exported.image}, {size_text(exported.image_bytes or 0)}")] if exported.image else []),
        *(("note", note) for note in exported.notes),
        *(("next", line) for line in exported.commands(folder)),
    ]
    return facts(exported.plan.name, f"version {exported.plan.version}, exported", rows)


def near(path: Path) -> str:
    """A path as one writes it in this notebook."""
    relative = os.path.relpath(path)
    return str(path) if Path(relative).parts[:1] == (os.pardir,) else relative


def register(shell: InteractiveShell) -> None:
    """Show what was exported as a card."""
    for kind, show in (("text/html", _html), ("text/plain", _text)):
        shell.display_formatter.formatters[kind].for_type_by_name(*EXPORTED, show)


def unregister(shell: InteractiveShell) -> None:
    for kind in ("text/html", "text/plain"):
        formatter = shell.display_formatter.formatters[kind]
        formatter.deferred_printers.pop(EXPORTED, None)
        for shown in [shown for shown in formatter.type_printers if (shown.__module__, shown.__name__) == EXPORTED]:
            del formatter.type_printers[shown]


def _html(exported: Exported) -> str:
    return card(exported).html


def _text(exported: Exported, printer: Any, cycle: bool) -> None:
    printer.text(card(exported).text)
