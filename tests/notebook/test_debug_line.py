"""The line of `%serve debug`: code and JSON stand in it as they are, quoted or not."""

from __future__ import annotations

from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from nbserve.debugging import DebugOptions
from nbserve.errors import DebugError
from nbserve.notebook import debug


@pytest.fixture
def asked(shell: InteractiveShell) -> Any:
    def parse(line: str, **names: Any) -> DebugOptions:
        shell.user_ns.update(names)
        name, options = debug.options_of(shell, debug.parser(), line)
        assert name == "digits"
        return options

    return parse


@pytest.mark.parametrize(
    "condition",
    ["xs[0] > 2", "x == ' --at '", "len(xs) > 2 and 'a b' in names", "(x, y) == (1, 2)", "x - -1 < 3", "not x"],
)
def test_a_condition_needs_no_quotes(asked: Any, condition: str) -> None:
    assert asked(f"digits --at preprocess --if {condition}").condition == condition
    options = asked(f"digits --if {condition} --at 12 --repeat")
    assert (options.condition, options.at, options.repeat) == (condition, "12", True)


def test_a_condition_may_stand_in_quotes(asked: Any) -> None:
    assert asked("""digits --at 3 --if "xs[0] == 'a'" """).condition == "xs[0] == 'a'"
    assert asked("digits --at 3 --if='xs[0] > 2'").condition == "xs[0] > 2"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"a": [1, 2], "b": "c d"}', b'{"a":[1,2],"b":"c d"}'),
        ('{"a": " --worker 3"}', b'{"a":" --worker 3"}'),
        ("""'{"a": 1}'""", b'{"a":1}'),
        ("[[0, 1], [1, 0]]", b"[[0,1],[1,0]]"),
        ("image + [3]", b"[1,2,3]"),
        ("[each for each in image]", b"[1,2]"),
        ("null", b"null"),
    ],
)
def test_a_request_is_json_or_an_expression(asked: Any, text: str, body: bytes) -> None:
    for line in (f"digits --request {text}", f"digits --request={text} --worker 1 --at inference"):
        options = asked(line, image=[1, 2])
        assert options.request == body
        assert options.content_type == "application/json"


def test_texts_bytes_and_files_are_sent_as_what_they_are(asked: Any, tmp_path: Any) -> None:
    assert asked("digits --request 'a b'").content_type.startswith("text/plain")
    assert asked('digits --request "a b"').request == b"a b"
    sent = asked("digits --request raw --content-type image/png", raw=b"\x89")
    assert (sent.request, sent.content_type) == (b"\x89", "image/png")
    (tmp_path / "one.json").write_bytes(b"[1]")
    assert asked(f"digits --request @{tmp_path}/one.json").request == b"[1]"


def test_commands_are_one_text(asked: Any) -> None:
    told = ["p xs[0]", 'p "a;b"', "c"]
    assert asked("""digits --commands 'p xs[0]; p "a;b"; c' --worker 1""").commands == told
    assert asked("""digits --commands p xs[0]; p "a;b"; c""").commands == told


def test_a_place_may_name_a_cell(asked: Any) -> None:
    assert asked("digits --at cell 3:12 --repeat").at == "cell 3:12"
    assert asked("digits --at 'cell 3:12'").at == "cell 3:12"


def test_who_debugs_is_told_by_its_cell(asked: Any, shell: InteractiveShell) -> None:
    # In a running cell, as outside of one there is no number.
    shell.user_ns["asked"] = asked
    shell.run_cell("who = asked('digits').who", store_history=True)
    assert shell.user_ns["who"] == "notebook, cell 1"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "NAME"),
        ("digits --at", "--at takes a place"),
        ("digits --at 3 --if", "--if takes a condition"),
        ("digits --at 3 --if x >", "--if x > is no Python expression"),
        ("digits --request", "--request takes JSON"),
        ("digits --last-eror", "did you mean --last-error?"),
        ("digits more", "'more' is one word too many"),
        ("digits --worker one", "takes a whole number"),
    ],
)
def test_a_mistake_is_named(asked: Any, line: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        asked(line)
    assert said in str(raised.value)


def test_what_cannot_go_together_is_named(asked: Any) -> None:
    with pytest.raises(DebugError, match="do not go together"):
        asked("digits --last-error --at 3")
    with pytest.raises(DebugError, match="--at"):
        asked("digits --if x > 1")


def test_the_help_shows_examples() -> None:
    text = debug.parser().format_help()
    assert text.startswith("usage: %serve debug NAME [options]")
    assert "%serve debug digits --at preprocess --if len(requests) > 3" in text
