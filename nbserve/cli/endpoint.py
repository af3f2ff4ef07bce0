"""What one does with a running endpoint: `nbserve predict`, `config`, `logs` and `stop`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from nbserve.cli.arguments import add_endpoint, endpoint_of
from nbserve.config import EndpointConfig
from nbserve.deployment import Server
from nbserve.logtext import log_text
from nbserve.options import add_settings, body_of, settings_of

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

FOLLOW_POLL_S = 0.5
RING_LINES = 5_000


def add(verbs: Verbs) -> None:
    predict = verbs.add_parser("predict", help="send one request and print the answer")
    add_endpoint(predict)
    predict.add_argument("body", metavar="BODY", help="JSON, @FILE for a file's bytes, or - for standard input")
    predict.add_argument("--content-type", help="default: JSON for text, application/octet-stream for files")
    predict.set_defaults(run=_predict)

    config = verbs.add_parser("config", help="show or change settings of a running endpoint")
    add_endpoint(config)
    add_settings(config, EndpointConfig)
    config.set_defaults(run=_config)

    logs = verbs.add_parser("logs", help="print log lines")
    add_endpoint(logs)
    logs.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many (default: 50)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.set_defaults(run=_logs)

    stop = verbs.add_parser("stop", help="stop an endpoint, or whole servers")
    add_endpoint(stop, nargs="?")
    stop.add_argument("--all", action="store_true", help="stop every server of yours")
    stop.set_defaults(run=_stop)


def _predict(values: argparse.Namespace) -> None:
    body, content_type = _body(values.body)
    answer = endpoint_of(values).predict(body, content_type=values.content_type or content_type)
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    else:
        print(answer if isinstance(answer, str) else json.dumps(answer))


def _body(text: str) -> tuple[bytes, str]:
    return (sys.stdin.buffer.read(), "application/json") if text == "-" else body_of(text)


def _config(values: argparse.Namespace) -> None:
    endpoint = endpoint_of(values)
    given = settings_of(values, EndpointConfig)
    settings = endpoint.configure(**given) if given else endpoint.settings
    for name, value in settings.items():
        print(f"{name} = {value}")


def _logs(values: argparse.Namespace) -> None:
    endpoint = endpoint_of(values)
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


def _stop(values: argparse.Namespace) -> int:
    if values.name is None and not values.all:
        print("nbserve: say which endpoint to stop, or --all", file=sys.stderr)
        return 2
    if values.name is not None:
        endpoint_of(values).stop()
        print(f"{values.name} is stopped")
        return 0
    for server in Server.find():
        pid = server.run_file.pid
        server.stop()
        print(f"server {pid} is stopped")
    return 0
