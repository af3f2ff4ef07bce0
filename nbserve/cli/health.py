"""`nbserve health`: is everything ready that is served here? For a container's health check, so it imports little."""

from __future__ import annotations

import argparse
import http.client
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from nbserve import runfile
from nbserve.errors import NbserveError

if TYPE_CHECKING:
    from nbserve.cli.arguments import Verbs

LIMIT_S = 5.0


def add(verbs: Verbs) -> None:
    health = verbs.add_parser(
        "health",
        help="exit with 0 when every endpoint is ready, else with 1",
        description="Ask the newest server of this user, or the one at a URL, whether every endpoint is ready.",
    )
    health.add_argument("--url", help="of its inference API, such as http://127.0.0.1:8080")
    health.set_defaults(run=_health)


def _health(values: argparse.Namespace) -> int:
    is_ready, text = ask(values.url or _own_url())
    print(text)
    return 0 if is_ready else 1


def ask(url: str) -> tuple[bool, str]:
    """Whether the server at `url` is ready, and what it says of itself; raises NbserveError when none answers."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    try:
        scheme = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = scheme(parts.netloc, timeout=LIMIT_S)
        connection.request("GET", parts.path.rstrip("/") + "/ping")
        response = connection.getresponse()
        said = json.loads(response.read())
        return response.status == 200, str(said.get("reason") or said["status"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, AttributeError) as error:
        raise NbserveError(f"no healthy server at {url}: {error or type(error).__name__}") from None


def _own_url() -> str:
    urls = [run_file.url for run_file in runfile.running() if run_file.url]
    if not urls:
        raise NbserveError("no server of this user is running here")
    return urls[-1]
