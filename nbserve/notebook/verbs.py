"""The verbs of `%serve`: status, panel, predict, profile, tune, debug, config, logs, export, stop. In the kernel."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from nbserve.config import EndpointConfig
from nbserve.errors import PredictError
from nbserve.notebook import attend, cell, debug, export, freetext, options, profile, tune
from nbserve.notebook.failure import show_below
from nbserve.notebook.panels import panels
from nbserve.notebook.progress import ProgressLine
from nbserve.notebook.status import Shown, card, table
from nbserve.notebook.watch import Watches
from nbserve.options import add_settings, as_option, settings_of
from nbserve.serving import Home
from nbserve.verbs import Endpoint


@dataclass(frozen=True)
class Face:
    """What a verb works with: the user's shell, the server of this kernel and the watches of its endpoints."""

    shell: InteractiveShell
    home: Home
    watches: Watches

    def tell(self, text: str) -> None:
        ProgressLine(self.shell, "nbserve")(text)


@dataclass(frozen=True)
class Verb:
    """`parser` describes it for --help; `run` gets the rest of the line and returns the cell's value."""

    parser: options.Parser
    run: Callable[[Face, options.Parser, str], Any]


def run(face: Face, line: str) -> Any:
    """Run a line of `%serve`; without a verb it is `status`."""
    verbs = all_verbs()
    name, _, rest = line.strip().partition(" ")
    if name in options.HELP:
        return display(_overview(verbs))
    verb = verbs.get(name or "status")
    if verb is None:
        near = options.meant(name, list(verbs))
        raise UsageError(f"%serve has no verb {name!r}{near or '; there are: ' + ', '.join(verbs)}")
    if _asks_for_help(name, rest):
        return display(as_text(verb.parser.format_help()))
    return verb.run(face, verb.parser, rest.strip())


def all_verbs() -> dict[str, Verb]:
    status = options.verb_parser("status", "Show the endpoints of this notebook and of detached servers.")
    status.add_argument("name", metavar="NAME", nargs="?", help="show this endpoint only")

    panel = options.verb_parser("panel", "Show how an endpoint does, live, with its settings to turn.")
    panel.add_argument("name", metavar="NAME")

    predict = options.verb_parser("predict", "Send one request and return the answer as the cell's value.")
    predict.add_argument("name", metavar="NAME")
    predict.add_argument("value", metavar="VALUE", help="JSON, or a Python expression of this notebook")

    config = options.verb_parser(
        "config", "Show or change the settings of a live endpoint: %serve config NAME workers=2"
    )
    config.add_argument("name", metavar="NAME")
    add_settings(config, EndpointConfig)

    logs = options.verb_parser("logs", "Show what the workers of an endpoint printed.")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("-n", "--lines", type=int, default=200, help="how many lines (default: 200)")

    stop = options.verb_parser("stop", "Stop an endpoint, or with --all the servers of `%serve status`.")
    stop.add_argument("name", metavar="NAME", nargs="?")
    stop.add_argument("--all", action="store_true", help="stop everything, detached servers too")
    return {
        "status": Verb(status, _status),
        "panel": Verb(panel, _panel),
        "predict": Verb(predict, _predict),
        "profile": Verb(profile.parser(), _profile),
        "tune": Verb(tune.parser(), _tune),
        "debug": Verb(debug.parser(), _debug),
        "config": Verb(config, _config),
        "logs": Verb(logs, _logs),
        "export": Verb(export.parser(), _export),
        "stop": Verb(stop, _stop),
    }


def _status(face: Face, parser: options.Parser, rest: str) -> None:
    values = parser.parse(options.split(rest))
    if values.name:
        endpoint = face.home.endpoint(values.name, face.tell)
        display(card(endpoint.stats(), endpoint.curl()))
    else:
        display(table([server.info() for server in face.home.servers(face.tell)]))


def _panel(face: Face, parser: options.Parser, rest: str) -> None:
    values = parser.parse(options.split(rest))
    panels().show(face.shell, face.home.endpoint(values.name, face.tell))


def _predict(face: Face, parser: options.Parser, rest: str) -> Any:
    name, _, expression = rest.partition(" ")
    if not expression.strip():
        parser.error("it takes a name and what to send, such as: %serve predict digits [[0, 1], [1, 0]]")
    endpoint = face.home.endpoint(name, face.tell)
    value = freetext.value(expression.strip(), functools.partial(cell.evaluate, face.shell))
    try:
        return attend.call(face.shell, face.watches, endpoint, lambda: endpoint.predict(value))
    except PredictError as error:
        raise show_below(face.shell, error, _logged_failure(endpoint, error)) from None


def _profile(face: Face, parser: options.Parser, rest: str) -> Any:
    name, asked = profile.asked_of(face.shell, parser, rest)
    return profile.run(face.shell, face.home.endpoint(name, face.tell), asked)


def _tune(face: Face, parser: options.Parser, rest: str) -> Any:
    name, asked = tune.asked_of(face.shell, parser, rest)
    return tune.run(face.shell, face.home.endpoint(name, face.tell), asked)


def _debug(face: Face, parser: options.Parser, rest: str) -> None:
    name, asked = debug.options_of(face.shell, parser, rest)
    debug.run(face.shell, face.home.endpoint(name, face.tell), asked)


def _config(face: Face, parser: options.Parser, rest: str) -> None:
    values = parser.parse([as_option(word) for word in options.split(rest)])
    endpoint = face.home.endpoint(values.name, face.tell)
    if changes := settings_of(values, EndpointConfig):
        endpoint.configure(**changes)
    display(_settings(endpoint.name, endpoint.settings))


def _logs(face: Face, parser: options.Parser, rest: str) -> None:
    values = parser.parse(options.split(rest))
    display(as_text(face.home.endpoint(values.name, face.tell).logs(values.lines) or "nothing was printed yet"))


def _export(face: Face, parser: options.Parser, rest: str) -> Any:
    name, directory, asked = export.asked_of(parser, rest)
    return export.run(face.shell, face.home.endpoint(name, face.tell), directory, asked)


def _stop(face: Face, parser: options.Parser, rest: str) -> None:
    values = parser.parse(options.split(rest))
    if values.all:
        for text in face.home.stop_all():
            face.tell(text)
        return
    if not values.name:
        parser.error("say which endpoint to stop, or --all")
    face.home.endpoint(values.name, face.tell).stop()
    face.home.forget(values.name)
    face.tell(f"{values.name} is stopped")


def _logged_failure(endpoint: Endpoint, error: PredictError) -> str:
    """What the log says about a failed request, which the answer names by its id only, and how to look into it."""
    request_id = str(error).rpartition(" under id ")[2]
    lines = (line["text"] for line in reversed(endpoint.log_lines(100)))
    found: str = next((line for line in lines if line.startswith(f"request {request_id} ")), "")
    if found and endpoint.server.info()["debug"]:
        found += f"\n%serve debug {endpoint.name} --last-error looks into it"
    return found


def _settings(name: str, values: dict[str, Any]) -> Shown:
    defaults = EndpointConfig().as_dict()
    notes = {key: f"  (default: {defaults[key]})" for key, value in values.items() if value != defaults[key]}
    return as_text("\n".join([name, *(f"  {key} = {value}{notes.get(key, '')}" for key, value in values.items())]))


def _asks_for_help(name: str, rest: str) -> bool:
    words = rest.split()
    # What these send or run may hold a --help of its own.
    meant = {"predict": words[:1], "debug": words[:2], "profile": words[:2], "tune": words[:2]}
    return options.wants_help(meant.get(name, words))


def _overview(verbs: dict[str, Verb]) -> Shown:
    lines = [f"  %serve {name:<9}{verb.parser.description}" for name, verb in verbs.items()]
    text = ["%%serve NAME    serves the handler that the cell defines (%%serve --help)", *lines]
    return as_text("\n".join([*text, "", "Each verb has --help. %serve alone is %serve status."]))


def as_text(text: str) -> Shown:
    """A text as it stands."""
    return Shown(f"<pre style='margin:0;background:none'>{html.escape(text)}</pre>", text)
