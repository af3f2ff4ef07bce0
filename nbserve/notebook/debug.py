"""`%serve debug`: the verb's line, and the session in the cell. Runs in the kernel."""

from __future__ import annotations

import argparse
import dataclasses
import functools

from IPython.core.interactiveshell import InteractiveShell

from nbserve import debugging
from nbserve.exchange import encode
from nbserve.notebook import cell, freetext, options
from nbserve.notebook.console import KernelConsole, NoInput, has_input
from nbserve.options import add_debug_options, debug_options_of
from nbserve.verbs import Endpoint

# What their values are, which may have spaces and quotes.
FREE_TEXTS = {
    "--at": "a place, such as: --at preprocess",
    "--if": "a condition, such as: --if xs[0] > 2",
    "--request": 'JSON or an expression of this notebook, such as: --request {"x": [1, 2]}',
    "--commands": 'what to do at the prompt, such as: --commands "w; p xs; c"',
}
# Without a prompt nobody can be asked to wait longer.
WAIT_WITHOUT_INPUT_S = 60.0


HELP = """\
Without options it takes the worker that a breakpoint() holds, or waits for one. At the prompt are pdb's commands:
  w u d l ll, s n r c, b tbreak, p pp display, interact, and any Python; multi-line statements end with an empty line
  expr?   what can follow: `obj.?` lists the attributes
  q       leaves and lets the request go on, as interrupting the cell does
  fail    ends this one request with an error for its client

COND is Python where the worker stops; JSON may also be an expression of this notebook; neither needs quotes.
  %serve debug digits --at preprocess --if len(requests) > 3
  %serve debug digits --at 12
  %serve debug digits --request {"image": [[0, 1], [1, 0]]}
  %serve debug digits --last-error --commands "w; p image.shape"
In a terminal `nbserve attach NAME` takes the same options."""


def parser() -> options.Parser:
    parser = options.verb_parser(
        "debug",
        "Be inside a request with pdb while the others are served.",
        usage="%%serve debug NAME [options]",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="the endpoint")
    add_debug_options(parser)
    return parser


def options_of(shell: InteractiveShell, parser: options.Parser, line: str) -> tuple[str, debugging.DebugOptions]:
    """The endpoint's name and what the line asks for."""
    line, texts = freetext.cut(line, parser.option_names(), tuple(FREE_TEXTS))
    for name in texts:
        if not texts[name]:
            parser.error(f"{name} takes {FREE_TEXTS[name]}")
    values = parser.parse([*options.split(line), *_tokens(texts)])
    asked = dataclasses.replace(debug_options_of(values), who=cell.label(shell))
    if "--request" not in texts or freetext.is_file(texts["--request"]):
        return values.name, asked
    body, kind = encode(freetext.request(texts["--request"], functools.partial(cell.evaluate, shell)))
    return values.name, dataclasses.replace(asked, request=body, content_type=values.content_type or kind)


def run(shell: InteractiveShell, endpoint: Endpoint, asked: debugging.DebugOptions) -> None:
    """The session: an interrupt detaches and leaves the cell as done, and so does a front end without input."""
    console = KernelConsole(endpoint.name)
    if not has_input(shell) and not asked.commands and asked.wait_s is None:
        asked = dataclasses.replace(asked, wait_s=WAIT_WITHOUT_INPUT_S)
    try:
        debugging.debug(endpoint, asked, console)
    except NoInput as error:
        console.note(f"detached, the worker goes on: {error}")
    except KeyboardInterrupt:
        console.note("interrupted: detached, the worker goes on")


def _tokens(texts: dict[str, str]) -> list[str]:
    """The free texts as options that the parser reads; it sees that there is a request, and not yet which."""
    plain = {name: freetext.unquoted(text) for name, text in texts.items()}
    if "--if" in texts:
        plain["--if"] = freetext.condition(texts["--if"])
    if "--request" in texts and not freetext.is_file(texts["--request"]):
        plain["--request"] = ""
    return [f"{name}={text}" for name, text in plain.items()]
