"""The command `nbserve`. `serve` turns this process into a server; the other verbs talk to running ones."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbserve
from nbserve.config import EndpointConfig, ServerConfig
from nbserve.debugging import debug, where
from nbserve.debugging.terminal import TerminalConsole
from nbserve.deployment import Server, find_endpoint
from nbserve.errors import NbserveError, ServerGone, StartError
from nbserve.logtext import log_text
from nbserve.options import (
    DEBUG_HELP,
    PROFILE_HELP,
    TUNE_HELP,
    ab_options_of,
    add_debug_options,
    add_profile_options,
    add_settings,
    add_tune_options,
    as_option,
    body_of,
    debug_options_of,
    profile_options_of,
    settings_of,
    tune_options_of,
)
from nbserve.verbs import Endpoint

FOLLOW_POLL_S = 0.5
RING_LINES = 5_000
ATTACH_EXAMPLES = """\
examples:
  nbserve attach digits                                take the worker that a breakpoint() holds
  nbserve attach digits --at preprocess                stop at its next call
  nbserve attach digits --at 12 --if 'len(xs) > 3'     stop in line 12 of the cell, when this is true there
  nbserve attach digits --request '[[0, 1]]'           send this and stop in it
  nbserve attach digits --last-error --commands 'p x; w'
"""
PROFILE_EXAMPLES = """\
examples:
  nbserve profile digits                        where the time goes, and what to do about it
  nbserve profile digits -o digits.html         ... as a page to look around in
  nbserve profile digits --load 50 -o t.json.gz at 50 requests a second, as a Chrome trace for Perfetto
  nbserve profile digits --ab compile=inductor  is it faster, and are the answers the same?
"""
TUNE_EXAMPLES = """\
examples:
  nbserve tune digits --p99-ms 50               the most throughput with a p99 within 50 ms
  nbserve tune digits --p99-ms 50 --apply       ... and change to it, if it is proven to be better
  nbserve tune digits --p99-ms 50 --load 200    at least 200 requests a second, which come by chance
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; gives the exit code: 0 done, 1 it failed, 2 the command line was wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["config"]:
        words = [as_option(word) for word in words]
    values = _parser().parse_args(words)
    try:
        return int(values.run(values) or 0)
    except StartError as error:
        print(f"nbserve: {error}\n{error.traceback_text}".rstrip(), file=sys.stderr)
    except NbserveError as error:
        print(f"nbserve: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nbserve", description="Serve PyTorch handlers written in notebook cells.")
    parser.add_argument("--version", action="version", version=nbserve.__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    serve = verbs.add_parser("serve", help="serve bundles in this process, until Ctrl-C or SIGTERM")
    serve.add_argument("bundles", nargs="*", type=Path, metavar="BUNDLE", help="folder written by %%%%serve")
    add_settings(serve, EndpointConfig)
    add_settings(serve, ServerConfig)
    for hidden, kind in (("--server-id", str), ("--owner-pid", int), ("--notebook", str)):
        serve.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)

    ps = verbs.add_parser("ps", help="list running servers and their endpoints")
    ps.add_argument("--json", action="store_true", help="print everything, for programs")
    ps.set_defaults(run=_ps)

    predict = verbs.add_parser("predict", help="send one request and print the answer")
    _add_endpoint(predict)
    predict.add_argument("body", metavar="BODY", help="JSON, @FILE for a file's bytes, or - for standard input")
    predict.add_argument("--content-type", help="default: JSON for text, application/octet-stream for files")
    predict.set_defaults(run=_predict)

    config = verbs.add_parser("config", help="show or change settings of a running endpoint")
    _add_endpoint(config)
    add_settings(config, EndpointConfig)
    config.set_defaults(run=_config)

    logs = verbs.add_parser("logs", help="print log lines")
    _add_endpoint(logs)
    logs.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many (default: 50)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.set_defaults(run=_logs)

    attach = verbs.add_parser(
        "attach",
        help="debug a worker with pdb while the others serve",
        description=f"Debug a live worker with pdb. {DEBUG_HELP}",
        epilog=ATTACH_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_endpoint(attach)
    add_debug_options(attach)
    attach.set_defaults(run=_attach)

    profile = verbs.add_parser(
        "profile",
        help="say where the time of requests goes, and try fixes out",
        description=f"Record an endpoint, from HTTP to kernel. {PROFILE_HELP}",
        epilog=PROFILE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_endpoint(profile)
    profile.add_argument(
        "-o", dest="file", metavar="FILE", help="save as .html (page), or .json or .json.gz (Chrome trace)"
    )
    add_profile_options(profile)
    profile.set_defaults(run=_profile)

    tune = verbs.add_parser(
        "tune",
        help="find the settings with the highest throughput that keep a latency goal",
        description=f"Find the settings that serve most within a latency goal.\n{TUNE_HELP}",
        epilog=TUNE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_endpoint(tune)
    add_tune_options(tune)
    tune.add_argument("--json", action="store_true", help="print everything, for programs")
    tune.set_defaults(run=_tune)

    stop = verbs.add_parser("stop", help="stop an endpoint, or whole servers")
    _add_endpoint(stop, nargs="?")
    stop.add_argument("--all", action="store_true", help="stop every server of yours")
    stop.set_defaults(run=_stop)
    return parser


def _add_endpoint(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("name", metavar="NAME", help="the endpoint", **options)
    parser.add_argument("--server", metavar="ID", help="its server_id, when several have that name (default: newest)")


def _endpoint(values: argparse.Namespace) -> Endpoint:
    return find_endpoint(values.name, values.server)


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


def _ps(values: argparse.Namespace) -> None:
    servers = [info for server in Server.find() if (info := _info(server))]
    if values.json:
        print(json.dumps(servers, indent=2))
        return
    if not servers:
        print("no server is running")
    for server in servers:
        owner = f", ends with process {server['owner_pid']}" if server["owner_pid"] else ""
        print(f"server {server['pid']} at {server['url']}{owner}")
        for endpoint in server["endpoints"]:
            _print_endpoint(endpoint)


def _info(server: Server) -> dict[str, Any] | None:
    try:
        return server.info()
    except ServerGone:
        return None  # It ended between the look-up and the question.


def _print_endpoint(endpoint: dict[str, Any]) -> None:
    print(f"  {endpoint['name']} {endpoint['version']} {endpoint['state']} {endpoint['url']}")
    for worker in endpoint["workers"]:
        memory = f"{worker['rss_bytes'] / 1e6:.0f} MB"
        role = worker.get("role", "worker")
        print(f"    {role} {worker['index']} pid {worker['pid']} {worker['state']} {worker['device']} {memory}")
        if worker.get("held"):
            print(f"      {_held(endpoint['name'], worker)}")


def _held(name: str, worker: dict[str, Any]) -> str:
    held = worker["held"]
    taken = f"debugged by {who}" if (who := worker["debugger"]) else f"nbserve attach {name} --worker {worker['index']}"
    return f"held in {where(held)}: {taken}"


def _predict(values: argparse.Namespace) -> None:
    body, content_type = _body(values.body)
    answer = _endpoint(values).predict(body, content_type=values.content_type or content_type)
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    else:
        print(answer if isinstance(answer, str) else json.dumps(answer))


def _body(text: str) -> tuple[bytes, str]:
    return (sys.stdin.buffer.read(), "application/json") if text == "-" else body_of(text)


def _config(values: argparse.Namespace) -> None:
    endpoint = _endpoint(values)
    given = settings_of(values, EndpointConfig)
    settings = endpoint.configure(**given) if given else endpoint.settings
    for name, value in settings.items():
        print(f"{name} = {value}")


def _logs(values: argparse.Namespace) -> None:
    endpoint = _endpoint(values)
    last = _print_lines(endpoint.log_lines(values.lines), 0)
    while values.follow:
        time.sleep(FOLLOW_POLL_S)
        last = _print_lines(endpoint.log_lines(RING_LINES, after=last), last)


def _print_lines(lines: list[dict[str, Any]], last: int) -> int:
    """Print log lines; gives the number of the newest one seen."""
    if not lines:
        return last
    print(log_text(lines), flush=True)
    return int(lines[-1]["number"])


def _attach(values: argparse.Namespace) -> None:
    who = f"terminal, pid {os.getpid()}"
    debug(_endpoint(values), dataclasses.replace(debug_options_of(values), who=who), TerminalConsole())


def _profile(values: argparse.Namespace) -> None:
    # Only here: the other verbs need no numpy.
    from nbserve.profiling import terminal

    if values.ab is not None:
        print(terminal.compare(_endpoint(values), values.ab, ab_options_of(values), values.file))
    else:
        print(terminal.record(_endpoint(values), profile_options_of(values), values.file))


def _tune(values: argparse.Namespace) -> int:
    # Only here: the other verbs need no numpy.
    from nbserve.tune import terminal

    text, code = terminal.tune(_endpoint(values), tune_options_of(values), values.json)
    print(text)
    return code


def _stop(values: argparse.Namespace) -> int:
    if values.name is None and not values.all:
        print("nbserve: say which endpoint to stop, or --all", file=sys.stderr)
        return 2
    if values.name is not None:
        _endpoint(values).stop()
        print(f"{values.name} is stopped")
        return 0
    for server in Server.find():
        pid = server.run_file.pid
        server.stop()
        print(f"server {pid} is stopped")
    return 0
