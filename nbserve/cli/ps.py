"""`nbserve ps`: what runs here."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from nbserve.debugging import where
from nbserve.deployment import Server
from nbserve.errors import ServerGone

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs


def add(verbs: Verbs) -> None:
    ps = verbs.add_parser("ps", help="list running servers and their endpoints")
    ps.add_argument("--json", action="store_true", help="print everything, for programs")
    ps.set_defaults(run=_ps)


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
