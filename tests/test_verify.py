"""`nbserve verify`: what it prints and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbserve import cli
from nbserve.bundle.bundle import Golden, golden_text
from tests.test_replay import JSON, Web, doubled, pair


@pytest.fixture
def server() -> Iterator[Web]:
    web = Web(doubled)
    yield web
    web.stop()


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    file = tmp_path / "golden.jsonl"
    file.write_text(golden_text([pair(1, 2), pair([0.5], [0.5, 0.5]), pair("a", "aa")]))
    return file


def write(file: Path, *pairs: Golden) -> str:
    file.write_text(golden_text(pairs))
    return str(file)


def test_equal(server: Web, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", server.url, str(golden), "--header", "Authorization: Bearer t"]) == 0
    assert "all 3 answers are equal to what was recorded" in capsys.readouterr().out
    assert {headers["Authorization"] for *_, headers in server.asked} == {"Bearer t"}


def test_the_first_difference_ends_with_one(server: Web, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(golden, pair(1, 2), pair("b", "bc"))
    assert cli.main(["verify", server.url, file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f'{server.url}/invocations: request 2 (application/json "b") is answered in another way: '
        '$: expected "bc", got "bb"\n'
    )


def test_tolerances_and_places(server: Web, golden: Path) -> None:
    file = write(golden, pair(0.5, 1.2))
    assert cli.main(["verify", server.url, file]) == 1
    assert cli.main(["verify", server.url, file, "--rtol", "0.2"]) == 0
    assert cli.main(["verify", server.url, file, "--atol", "0.2"]) == 0
    assert cli.main(["verify", server.url, file, "--ignore", "$"]) == 0
    rounded = write(golden, pair(0.5, 1.02))
    assert cli.main(["verify", server.url, rounded]) == 1
    assert cli.main(["verify", server.url, rounded, "--dtype", "bfloat16"]) == 0
    assert cli.main(["verify", server.url, rounded, "--dtype", "bfloat16", "--rtol", "0.001"]) == 1


def test_all_of_it_for_programs(server: Web, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", server.url, str(golden), "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["equal"], told["asked"], told["difference"], len(told["ms"])) == (3, 3, None, 3)
    assert cli.main(["verify", server.url, write(golden, pair(1, 3)), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["equal"] == 0
    assert told["difference"] | {"text": "", "hint": ""} == {
        "request": 1,
        "place": "$",
        "expected": "3",
        "received": "2",
        "others": 0,
        "status": 200,
        "hint": "",
        "text": "",
    }


def test_what_changes_by_itself_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = iter(range(100))
    web = Web(lambda path, body: (200, json.dumps({"id": next(numbers), "x": 1}).encode()))
    try:
        file = write(tmp_path / "golden.jsonl", pair(1, {"id": 77, "x": 1}))
        assert cli.main(["verify", web.url, file]) == 1
        assert "cannot be compared. Leave it out with --ignore '$.id'." in capsys.readouterr().err
        assert cli.main(["verify", web.url, file, "--ignore", "$.id"]) == 0
    finally:
        web.stop()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no URL such as"),
        (["{url}/v1/models/m:predict"], "another shape"),
        (["{url}", "missing.jsonl"], "missing.jsonl cannot be read: No such file"),
        (["{url}", "{empty}"], "holds no request"),
        (["{url}", "{damaged}"], "is damaged at"),
        (["{url}", "--header", "nocolon"], "is no header such as"),
        (["{url}", "--rtol", "-1"], "not a number of 0 or more"),
        (["{url}", "--rtol", "x"], "invalid"),
        (["{url}", "--ignore", "id"], "one is $.id"),
    ],
)
def test_a_wrong_command_line_ends_with_two(
    words: list[str], said: str, server: Web, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "damaged").write_text("{}\n")
    names = {"url": server.url, "empty": tmp_path / "empty", "damaged": tmp_path / "damaged"}
    line = [word.format(**names) for word in words]
    if len(line) == 1 or line[1].startswith("--"):
        line.insert(1, str(golden))
    assert ending(["verify", *line]) == 2
    assert said in capsys.readouterr().err
    assert server.asked == []


def ending(words: list[str]) -> int:
    try:
        return cli.main(words)
    except SystemExit as end:
        return int(str(end.code))


def test_nobody_there_ends_with_one(server: Web, golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.stop()
    assert cli.main(["verify", server.url, str(golden)]) == 1
    assert "does not answer: Connection refused" in capsys.readouterr().err
    assert cli.main(["verify", server.url, str(golden), "--wait", "0.2"]) == 1
    assert "is not ready after 0.2 s: Connection refused" in capsys.readouterr().err


def test_bodies_that_are_no_json(tmp_path: Path) -> None:
    web = Web(lambda path, body: (200, b"1"))
    try:
        recorded = Golden(b"\xff\xd8", "image/jpeg", 200, b"1.0", JSON)
        assert cli.main(["verify", f"{web.url}/predictions/h", write(tmp_path / "g.jsonl", recorded)]) == 0
        assert web.asked[0][2] == b"\xff\xd8"
    finally:
        web.stop()
