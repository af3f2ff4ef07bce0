"""`nbserve serve`: turn this process into a server."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from nbserve.config import EndpointConfig, ServerConfig
from nbserve.options import add_settings, settings_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs


def add(verbs: Verbs) -> None:
    serve = verbs.add_parser("serve", help="serve bundles in this process, until Ctrl-C or SIGTERM")
    serve.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="folder written by %%%%serve")
    add_settings(serve, EndpointConfig)
    add_settings(serve, ServerConfig)
    for hidden, kind in (("--server-id", str), ("--owner-pid", int), ("--notebook", str)):
        serve.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)


def _serve(values: argparse.Namespace) -> int:
    # Only here: the other verbs need neither uvloop nor Tornado.
    from nbserve.server import app

    return app.run(
        app.Launch(
            server_id=values.server_id or secrets.token_hex(8),
            config=ServerConfig().changed(settings_of(values, ServerConfig)),
            bundles=values.bundles,
            settings=settings_of(values, EndpointConfig),
            owner_pid=values.owner_pid,
            notebook=values.notebook,
        )
    )
