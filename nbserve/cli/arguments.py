"""What several verbs of the command line take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nbserve.deployment import find_endpoint
from nbserve.verbs import Endpoint

if TYPE_CHECKING:
    # Made by add_subparsers(); a verb adds its parser to it.
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_endpoint(parser: argparse.ArgumentParser, **options: Any) -> None:
    parser.add_argument("name", metavar="NAME", help="the endpoint", **options)
    parser.add_argument("--server", metavar="ID", help="its server_id, when several have that name (default: newest)")


def endpoint_of(values: argparse.Namespace) -> Endpoint:
    return find_endpoint(values.name, values.server)
