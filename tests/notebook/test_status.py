"""The status card and table: HTML and text say the same, and nothing that a user named can break out of the HTML."""

from __future__ import annotations

import re
from typing import Any

from nbserve.config import EndpointConfig
from nbserve.notebook import status


def endpoint(**changes: Any) -> dict[str, Any]:
    workers = [
        {"index": 0, "pid": 11, "state": "READY", "device": "cpu", "restarts": 0},
        {"index": 1, "pid": 12, "state": "STARTING", "device": "cpu", "restarts": 1},
    ]
    return {
        "name": "digits",
        "version": "3f9c2a7710ab",
        "state": "READY",
        "url": "http://127.0.0.1:4000/predictions/digits",
        "settings": EndpointConfig(workers=2, max_batch_size=16).as_dict(),
        "queued": 3,
        "workers": workers,
        "requests": {"200": 1432, "500": 2, "503": 0},
        **changes,
    }


def test_the_card_says_the_same_in_both_forms() -> None:
    shown = status.card(endpoint(), "curl -d '[1]' http://127.0.0.1:4000/predictions/digits", 0.41, ["a note"])
    for text in (
        "3f9c2a7710ab",
        "http://127.0.0.1:4000/predictions/digits",
        "1 ready (cpu), 1 starting (cpu), 1 restarted",
        "workers=2 max_batch_size=16",
        "200: 1,432  500: 2",
        "0.41 s",
        "a note",
    ):
        assert text in shown.text
        assert text in shown.html
    assert "curl -d '[1]'" in shown.text


def test_what_users_named_is_escaped() -> None:
    shown = status.card(endpoint(name="<b>&"), "curl -d '<script>'", notes=["<i>"])
    assert "<script>" not in shown.html
    assert "<i>" not in shown.html
    assert "<b>&</b>" not in shown.html


def test_default_settings_are_not_listed() -> None:
    assert status.settings(EndpointConfig().as_dict()) == "defaults"


def test_the_table_lists_servers_and_their_endpoints() -> None:
    shown = status.table(
        [
            {"pid": 7, "detached": False, "endpoints": []},
            {"pid": 8, "detached": True, "endpoints": [endpoint(), endpoint(name="mlp")]},
        ]
    )
    assert "server, pid 7: no endpoints yet" in shown.text
    assert "detached server, pid 8" in shown.text
    lines = shown.text.splitlines()
    assert sum("predictions" in line for line in lines) == 2
    assert shown.html.count("<tr") == 3


def test_no_server_is_said_so() -> None:
    assert "no server runs" in status.table([]).text


HELD = {
    "worker": 1,
    "pid": 12,
    "reason": "breakpoint",
    "file": "quickstart.ipynb, cell 3",
    "line": 12,
    "function": "preprocess",
    "request_ids": ["ab-1"],
    "since_s": 100.0,
    "debugger": None,
    "goes_on_in_s": 90.0,
    "socket": "/run/w1.sock",
}


def held(**changes: Any) -> dict[str, Any]:
    worker = {"index": 1, "pid": 12, "state": "HELD", "device": "cpu", "restarts": 0, "held": {**HELD, **changes}}
    standin = {"index": 2, "pid": 13, "state": "READY", "device": "cpu", "restarts": 0, "role": "stand-in"}
    return endpoint(workers=[worker, standin])


def test_a_held_worker_is_told_with_its_place_and_how_to_attach() -> None:
    for shown in (status.card(held(), "curl"), status.table([{"pid": 7, "detached": False, "endpoints": [held()]}])):
        for text in (
            "1 held (cpu), 1 ready (cpu, stand-in)",
            "worker 1 at quickstart.ipynb, cell 3, line 12 in preprocess, request ab-1; %serve debug digits attaches",
            "else it goes on by itself at ",
        ):
            assert text in shown.text
            assert text in shown.html


def test_short_cells_of_the_table_stay_on_their_line() -> None:
    shown = status.table([{"pid": 7, "detached": False, "endpoints": [held()]}])
    [workers_cell] = re.findall("<td style='([^']*)'>1 held ", shown.html)
    assert "white-space:nowrap" in workers_cell


def test_a_debugged_worker_says_who_has_it() -> None:
    shown = status.card(held(debugger="a.ipynb, cell 4", goes_on_in_s=None, request_ids=[]), "curl")
    assert "line 12 in preprocess; debugged by a.ipynb, cell 4" in shown.text
    assert "attaches" not in shown.text


def test_a_card_without_holds_has_no_row_for_them() -> None:
    assert "held" not in status.card(endpoint(), "curl").text
