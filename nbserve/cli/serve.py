"""`nbserve serve`: turn this process into a server."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbserve import environment
from nbserve.config import EndpointConfig, ServerConfig
from nbserve.options import add_settings, settings_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs


def add(verbs: Verbs) -> None:
    serve = verbs.add_parser(
        "serve",
        help="serve bundles in this process, until Ctrl-C or SIGTERM",
        epilog="Each setting can be given by the environment too: NBSERVE_WORKERS=2 is --workers 2, which comes first.",
    )
    serve.add_argument(
        "bundles", nargs="*", type=Path, metavar="BUNDLE", help="folder written by %%%%serve (default: NBSERVE_BUNDLE)"
    )
    add_settings(serve, EndpointConfig)
    add_settings(serve, ServerConfig)
    for hidden, kind in (("--server-id", str), ("--owner-pid", int), ("--notebook", str)):
        serve.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)


def _serve(values: argparse.Namespace) -> int:
    # The first process of a container has no default for it: until somebody listens it would be lost.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Who started a server as a part of its own says all by the command line.
    environ = {} if values.owner_pid is not None else dict(os.environ)
    # Handlers need not know it.
    os.environ.pop(environment.TOKEN, None)
    try:
        return _run(values, environ)
    except Exception as error:
        if settings_of(values, ServerConfig).get("log_format", environ.get("NBSERVE_LOG_FORMAT")) != "json":
            raise
        from nbserve.server.logbook import json_error

        print(json_error(error), file=sys.stderr)
        return 1


def _run(values: argparse.Namespace, environ: Mapping[str, str]) -> int:
    # Only here: the other verbs need neither uvloop nor Tornado.
    from nbserve.server import app

    told = environment.read(environ)
    config = ServerConfig().changed(told.server).changed(settings_of(values, ServerConfig))
    token = environment.management_token(environ)
    environment.check_management(config, token)
    return app.run(
        app.Launch(
            server_id=values.server_id or secrets.token_hex(8),
            config=config,
            bundles=values.bundles or told.bundles,
            settings=(told.endpoint, settings_of(values, EndpointConfig)),
            owner_pid=values.owner_pid,
            notebook=values.notebook,
            token=token,
            routes=told.routes,
            warnings=told.warnings,
        )
    )
