"""What can be asked of a debugger: options that go together, and commands cut from one text."""

from __future__ import annotations

import argparse

import pytest

from nbserve.debugging import DebugOptions, split_commands
from nbserve.debugging.console import Script, Silent
from nbserve.errors import DebugError, NbserveError
from nbserve.options import add_debug_options, debug_options_of


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("p x; w; c", ["p x", "w", "c"]),
        ("p x;; w\nc", ["p x", "w", "c"]),
        ("p 'a;b'; p \"c;'d\"", ["p 'a;b'", 'p "c;\'d"']),
        (r"p 'it\'s; so'; c", [r"p 'it\'s; so'", "c"]),
        ("p f(1,\n 2); p {1: ';'}", ["p f(1,\n 2)", "p {1: ';'}"]),
        ('p """a;\n"b";"""; c', ['p """a;\n"b";"""', "c"]),
        ("p x); c", ["p x)", "c"]),
        ("fail don't; c", ["fail don't; c"]),
        (" ; ", []),
    ],
)
def test_commands_are_cut_where_no_quote_or_bracket_is_open(text, commands):
    assert split_commands(text) == commands


def test_an_open_statement_of_a_script_is_ended():
    script = Script(Silent(), ["for x in xs: print(x)", "def f():\n    return 1", "c"])
    lines = [script.read_line(prompt) for prompt in ("(Pdb) ", "... ", "(Pdb) ", "... ", "... ", "(Pdb) ")]
    assert lines == ["for x in xs: print(x)", "", "def f():", "    return 1", "", "c"]
    assert script.is_spent()
    with pytest.raises(EOFError):
        script.read_line("(Pdb) ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"last_error": True, "at": "inference"}, "--last-error and --at do not go together"),
        ({"replay": True, "request": b"1"}, "--replay and --request"),
        ({"replay": True, "worker": 0}, "--replay and --worker"),
        ({"interrupt": True, "condition": "x"}, "--interrupt and --if"),
        ({"interrupt": True, "replay": True}, "--replay and --interrupt"),
        ({"port": 0, "commands": ("c",)}, "--port and --commands"),
        ({"last_error": True, "wait_s": 3}, "--last-error and --wait"),
        ({"condition": "x"}, "give --at too"),
        ({"content_type": "text/plain"}, "there is none"),
        ({"repeat": True, "request": b"1"}, "--repeat and --request"),
    ],
)
def test_options_that_do_not_go_together_are_told_at_once(options, said):
    with pytest.raises(DebugError, match=said):
        DebugOptions(**options)


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "attach"),
        ({"worker": 0, "repeat": True}, "attach"),
        ({"at": "12", "condition": "x"}, "stop"),
        ({"request": b""}, "stop"),
        ({"replay": True, "at": "12"}, "replay"),
        ({"last_error": True, "worker": 1, "who": "me"}, "last_error"),
        ({"interrupt": True, "wait_s": 1}, "interrupt"),
        ({"port": 0}, "port"),
    ],
)
def test_the_options_say_which_way(options, way):
    assert DebugOptions(**options).way == way


def test_the_options_of_the_command_line_are_those_of_python(tmp_path):
    parser = argparse.ArgumentParser()
    add_debug_options(parser)
    assert debug_options_of(parser.parse_args([])) == DebugOptions()
    words = [
        "--at",
        "12",
        "--if",
        "x > 1",
        "--request",
        "[1]",
        "--worker",
        "1",
        "--commands",
        "p x; c",
        "--wait",
        "2.5",
    ]
    assert debug_options_of(parser.parse_args(words)) == DebugOptions(
        at="12",
        condition="x > 1",
        request=b"[1]",
        content_type="application/json",
        worker=1,
        commands=["p x", "c"],
        wait_s=2.5,
    )
    (tmp_path / "digit.png").write_bytes(b"png")
    found = debug_options_of(parser.parse_args(["--request", f"@{tmp_path / 'digit.png'}"]))
    assert (found.request, found.content_type) == (b"png", "application/octet-stream")
    with pytest.raises(NbserveError, match=r"cannot read .*none"):
        debug_options_of(parser.parse_args(["--request", f"@{tmp_path / 'none'}"]))


def test_only_scripts_have_a_limit_by_themselves():
    assert DebugOptions().limit_s is None
    assert DebugOptions(commands=["c"]).limit_s == 60
    assert DebugOptions(commands=["c"], wait_s=5).limit_s == 5
