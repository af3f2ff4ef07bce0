"""`nbserve export`: a folder that runs elsewhere, from a bundle, a running endpoint or a whole notebook."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from nbserve.bundle.bundle import HEAD, Bundle
from nbserve.deployment import find_endpoint
from nbserve.errors import ExportError, NbserveError, NotFound
from nbserve.options import EXPORT_HELP, add_export_options, export_options_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs
    from nbserve.export.options import ExportOptions
    from nbserve.export.session import Exported
    from nbserve.verbs import Endpoint

EXAMPLES = """\
examples:
  nbserve export digits DIR                     an endpoint that runs here
  nbserve export ~/bundles/digits-3f9c2a DIR    a bundle's folder
  nbserve export quickstart.ipynb DIR           runs the notebook, and exports what it served
  nbserve export digits DIR --build digits:1    ... and builds the image
"""


def add(verbs: Verbs) -> None:
    export = verbs.add_parser(
        "export",
        help="write a folder that runs as a container, on Kubernetes and on Ray Serve",
        description=f"Take an endpoint elsewhere.\n{EXPORT_HELP}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    export.add_argument("source", metavar="WHAT", help="a bundle's folder, a running endpoint's name, or a notebook")
    export.add_argument("directory", metavar="DIR", type=Path, help="the folder to write, new or of an earlier export")
    add_export_options(export)
    export.add_argument("--server", metavar="ID", help="the endpoint's server_id, when several have that name")
    notebook = export.add_argument_group("a notebook")
    notebook.add_argument("--endpoint", metavar="NAME", help="export this one of those that the notebook serves")
    notebook.add_argument("--allow-errors", action="store_true", help="go on after a cell that fails")
    notebook.add_argument("--kernel", metavar="NAME", help="run it in this kernel (default: the one that it names)")
    export.add_argument("--json", action="store_true", help="say everything in lines of JSON, for programs")
    export.add_argument("--until-stdin-ends", action="store_true", help=argparse.SUPPRESS)
    export.set_defaults(run=_export)


Tell = Callable[[str], None]
# Writes one export into a folder.
Write = Callable[[Path], "Exported"]


def _export(values: argparse.Namespace) -> int:
    if values.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    tell = _tell_in_json if values.json else _tell
    exported: list[Exported] = []
    try:
        with _ended_cleanly(), _sources(values, tell) as sources:
            for directory, write in _places(sources, values.directory):
                exported.append(write(directory))
                if not values.json:
                    # Each at once: the next may not work out.
                    print(exported[-1], flush=True)
    except NbserveError as error:
        if not values.json:
            raise
        _say(event="failed", code=error.status, type=error.kind, message=str(error))
        return 1
    if values.json:
        _say(event="exported", exports=[_as_object(each) for each in exported])
    return 0


@contextmanager
def _sources(values: argparse.Namespace, tell: Tell) -> Iterator[Mapping[str, Write]]:
    """What to export, by name; it is there within this block."""
    path, options = Path(values.source), export_options_of(values)
    # Whoever names a server means what runs there.
    is_file = values.server is None
    if is_file and path.suffix == ".ipynb":
        _check_early(values)
        # Only here: a kernel's libraries are for who runs notebooks.
        from nbserve.notebook.headless import served

        with served(path, tell, kernel=values.kernel, allow_errors=values.allow_errors) as bundles:
            chosen = _chosen(bundles, values.endpoint, path)
            _refuse_one_for_all(chosen, values)
            yield {name: partial(_write_bundle, bundle, options, tell) for name, bundle in chosen.items()}
    elif is_file and (bundle := _bundle_in(path)) is not None:
        tell(f"exporting the bundle in {bundle}")
        yield {Bundle.read(bundle).name: partial(_write_bundle, bundle, options, tell)}
    else:
        endpoint = _endpoint(values)
        tell(f"exporting the endpoint {endpoint.name} of server {endpoint.server.run_file.pid}")
        yield {endpoint.name: partial(endpoint.export, **asdict(options), on_progress=tell)}


def _check_early(values: argparse.Namespace) -> None:
    """What would be found out only after the notebook has run."""
    from nbserve.export.builders import find_builder

    if values.build is not None:
        find_builder()
    if values.directory.exists() and not values.directory.is_dir():
        raise ExportError(f"{values.directory} exists and is no folder: export to another one")


def _bundle_in(path: Path) -> Path | None:
    """The folder itself, or what an earlier export has of it."""
    return next((bundle for bundle in (path, path / "bundle") if (bundle / HEAD).is_file()), None)


def _write_bundle(bundle: Path, options: ExportOptions, tell: Tell, directory: Path) -> Exported:
    from nbserve.export.session import export

    return export(bundle, directory, options, tell)


def _endpoint(values: argparse.Namespace) -> Endpoint:
    try:
        return find_endpoint(values.source, values.server)
    except NotFound as error:
        path = Path(values.source)
        what = f"the folder {path} is no bundle: it has no {HEAD}" if path.is_dir() else f"there is no bundle {path}"
        raise ExportError(f"{what}, and {error}") from None


def _chosen(bundles: Mapping[str, Path], name: str | None, notebook: Path) -> Mapping[str, Path]:
    if name is None:
        return bundles
    if name not in bundles:
        raise ExportError(f"{notebook.name} serves no endpoint {name!r}; it serves {', '.join(bundles)}")
    return {name: bundles[name]}


def _refuse_one_for_all(bundles: Mapping[str, Path], values: argparse.Namespace) -> None:
    for option in ("build", "golden"):
        if len(bundles) > 1 and getattr(values, option) is not None:
            names = ", ".join(bundles)
            raise ExportError(f"--{option} is about one endpoint, and there are {names}: choose one with --endpoint")


def _places(sources: Mapping[str, Write], directory: Path) -> Iterator[tuple[Path, Write]]:
    """The folder itself for one, a folder in it for each of several."""
    for name, write in sources.items():
        yield directory if len(sources) == 1 else directory / name, write


def _as_object(exported: Exported) -> dict[str, Any]:
    return {
        "name": exported.plan.name,
        "version": exported.plan.version,
        "path": str(exported.path.absolute()),
        "files": exported.files,
        "size_bytes": exported.size_bytes,
        "proven": exported.proven,
        "proof": exported.proof,
        "image": exported.image,
        "image_bytes": exported.image_bytes,
        "notes": exported.notes,
        "commands": exported.commands(),
    }


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell_in_json(text: str) -> None:
    _say(event="progress", text=text)


def _say(**line: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.flush()


@contextmanager
def _ended_cleanly() -> Iterator[None]:
    """SIGTERM ends this block as Ctrl-C does: with nothing left behind."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*signal_and_frame: object) -> NoReturn:
    # What is cleaned up now is not interrupted again.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_stdin() -> None:
    """Who started this process holds the other end, and may end without a word."""
    # Not sys.stdin, whose lock would be held when the interpreter ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
