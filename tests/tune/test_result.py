"""What is said and drawn of an auto-tune: verdicts, texts, the picture."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from nbserve.errors import AutoTuneError
from nbserve.profiling.statistics import Estimate
from nbserve.tune import page, plot, still, summary
from nbserve.tune.board import Board
from nbserve.tune.meter import reading
from nbserve.tune.options import TuneOptions
from nbserve.tune.points import Ask, Goal, Load, Reading, Settings
from nbserve.tune.proof import Proof, Side
from nbserve.tune.rivals import Match
from nbserve.tune.state import State
from nbserve.tune.tuned import Tuned

GOAL = Goal(50.0)
BEFORE, BEST = Settings(), Settings(workers=2, max_batch_size=128, policy="window", max_batch_delay_ms=2.0)
OTHER, BROKEN = Settings(workers=2), Settings(max_batch_size=512)


class Served:
    """An endpoint that notes how it is configured."""

    name = "digits"
    version = "v1"

    def __init__(self) -> None:
        self.configured: list[dict[str, Any]] = []

    def configure(self, **settings: Any) -> dict[str, Any]:
        self.configured.append(settings)
        return settings


def state(goal: Goal = GOAL) -> State:
    board = Board(goal)
    for settings, clients, throughput, p99_ms, errors in (
        (BEFORE, 1, 90.0, 12.0, {}),
        (BEFORE, 32, 1200.0, 40.0, {}),
        (BEFORE, 64, 1300.0, 80.0, {}),
        (OTHER, 64, 1900.0, 45.0, {}),
        (BEST, 96, 2400.0, 44.0, {}),
        (BROKEN, 64, 0.0, math.inf, {"500": 3}),
    ):
        ask = Ask(settings, Load(clients), 1.0, 0.3, "")
        board.add(ask, Reading(throughput, p99_ms / 2, p99_ms, 100, 1.5, errors))
    return State("digits", board, BEFORE, BEST, "workers: 2 workers", spent_s=30.0, seconds=120.0)


def proof(**changes: Any) -> Proof:
    known: dict[str, Any] = {
        "goal": GOAL,
        "best": Side(Load(96), 2380.0, 45.0, 0),
        "current": Side(Load(32), 1190.0, 41.0, 0),
        "estimate": Estimate(2.0, (1.9, 2.1), 10),
    }
    return Proof(**{**known, **changes})


def tuned(found: Proof | None = None, endpoint: Any = None, **changes: Any) -> Tuned:
    now = state()
    assert now.best_point is not None
    known: dict[str, Any] = {"version": "v1", "is_clear": True}
    return Tuned(endpoint or Served(), now, now.best_point, found, **{**known, **changes})


def test_a_verdict_needs_the_goal_enough_pairs_and_a_gain() -> None:
    assert proof().verdict == "faster"
    assert proof(best=Side(Load(96), 2380.0, 51.0, 0)).verdict == "no gain"
    assert proof(best=Side(Load(96), 2380.0, 45.0, 2)).verdict == "no gain"
    assert proof(estimate=Estimate(2.0, (1.9, 2.1), 5)).verdict == "not proven"
    same = Estimate(1.01, (0.98, 1.03), 10)
    assert proof(estimate=same).verdict == "no gain"
    assert proof(estimate=same, is_leaner=True).verdict == "leaner"
    assert proof(estimate=Estimate(0.95, (0.9, 1.0), 10), is_leaner=True).verdict == "no gain"


def test_where_the_settings_before_miss_the_goal_that_is_the_gain() -> None:
    late, near = Side(Load(1), 20.0, 70.0, 0), Side(Load(1), 20.0, 52.0, 0)
    slower = Estimate(0.8, (0.7, 0.9), 10)
    assert proof(is_too_much=True, current=late, estimate=slower).verdict == "keeps the goal"
    assert proof(is_too_much=True, current=near, estimate=slower).verdict == "no gain"
    assert proof(is_too_much=True, current=near).verdict == "faster"
    assert proof(is_too_much=True).verdict == "no gain"
    behind = Side(Load(rate=200.0), 150.0, 40.0, is_behind=True)
    assert proof(is_too_much=True, current=behind, estimate=slower).verdict == "keeps the goal"


def test_the_text_says_how_much_and_what_to_do() -> None:
    text = tuned(proof()).text
    assert text.startswith(
        "digits: 2.00 times the throughput within 50 ms (95 % interval 1.90 to 2.10), with 2 workers"
    )
    assert re.search(r"before +1,190 +41 ms  32 clients +1 worker, batch 32, adaptive", text)
    assert re.search(r"best +2,380 +45 ms  96 clients +2 workers, batch 128, window 2 ms", text)
    assert re.search(r"\n +1,900 +45 ms  64 clients +2 workers, batch 32, adaptive", text)
    assert "4 settings in 6 measurements, 30 s; nothing near the best is better" in text
    assert "requests failed with 1 worker, batch 512, adaptive and 64 clients: 3 times 500" in text
    assert "%serve config digits workers=2 max_batch_size=128 policy=window max_batch_delay_ms=2.0\n" in text
    assert "%%serve digits --workers 2 --max-batch-size 128 --policy window --max-batch-delay-ms 2" in text
    assert summary.text(tuned(proof()), "nbserve").count("nbserve config digits") == 1


def test_what_disturbed_and_what_was_in_the_way_is_told() -> None:
    text = tuned(proof(), disturbing=5000, crowd=0.4, limit="one takes about 900 MB", is_clear=False).text
    assert "clients sent 5,000 requests to digits meanwhile" in text
    assert "other processes took 40% of this machine's CPU time" in text
    assert "one takes about 900 MB" in text
    assert "more --seconds may find more" in text
    assert "clients sent" not in tuned(proof(), disturbing=3).text


def test_other_verdicts_in_words() -> None:
    assert "no gain: the settings are as good as any that were tried" in tuned(None).text
    assert "interrupted; the best so far" in tuned(None, is_interrupted=True).text
    assert "nothing was changed" in tuned(None, is_interrupted=True).text
    missed = proof(best=Side(Load(96), 2380.0, 51.0, 0))
    assert "passed 50 ms when it was measured again" in tuned(missed).text
    same = proof(estimate=Estimate(1.01, (0.98, 1.03), 10))
    assert "as good as the best that was found (0.98 to 1.03 times" in tuned(same).text
    late = proof(is_too_much=True, current=Side(Load(1), 20.0, 70.0, 0))
    assert "keeps 50 ms as the settings before do not" in tuned(late).text


def test_only_a_proven_gain_is_applied() -> None:
    endpoint = Served()
    found = tuned(proof(), endpoint).applied()
    assert endpoint.configured == [BEST.as_dict()]
    assert found.is_applied
    assert "applied; for when the cell runs again: %%serve digits" in found.text
    with pytest.raises(AutoTuneError, match="not proven, so nothing is applied"):
        tuned(None, endpoint, is_interrupted=True).apply()
    with pytest.raises(AutoTuneError, match="no gain, so nothing is applied"):
        tuned(None, endpoint).apply()
    with pytest.raises(AutoTuneError, match="other code"):
        tuned(proof(), endpoint, version="v0").apply()
    assert len(endpoint.configured) == 1


def test_an_object_for_programs() -> None:
    found = json.loads(json.dumps(tuned(proof()).as_object()))
    assert (found["verdict"], found["speedup"], found["interval"]) == ("faster", 2.0, [1.9, 2.1])
    assert found["best"]["settings"] == BEST.as_dict()
    assert (found["current"]["clients"], found["current"]["throughput"]) == (32, 1200.0)
    assert [point["p99_ms"] for point in found["points"]] == [12.0, 40.0, 80.0, 45.0, 44.0, None]


def test_the_plot_has_a_dot_for_each_point_and_marks_two() -> None:
    drawn = plot.plot(state(), 720, 300)
    assert [dot.kind for dot in drawn.dots] == ["kept", "late", "kept", "before", "best"]
    best, late = drawn.dots[-1], drawn.dots[1]
    assert best.x < drawn.late_x < late.x
    assert best.y == min(dot.y for dot in drawn.dots)
    assert [dot.label for dot in drawn.dots] == ["", "", "", "before", "best"]
    assert [tick.label for tick in drawn.y_ticks] == ["0", "1,000", "2,000"]
    assert all(plot.LEFT_PX <= dot.x <= drawn.right and 0 < dot.y <= drawn.bottom for dot in drawn.dots)
    assert [tick.label for tick in drawn.x_ticks] == ["10 ms", "20 ms", "50 ms", "100 ms"]
    assert drawn.frontier == sorted(drawn.frontier)
    assert "2,400 requests/s, p99 44 ms\n2 workers, batch 128, window 2 ms\n96 clients" in best.title


def test_a_plot_of_nothing_yet_has_its_axes() -> None:
    empty = State("digits", Board(GOAL), BEFORE, BEFORE)
    drawn = plot.plot(empty, 720, 300)
    assert drawn.dots == []
    assert len(drawn.x_ticks) >= 2
    assert "goal 50 ms" in page.live(empty)


def test_latencies_far_off_stay_in_the_picture() -> None:
    now = state(Goal(1.0))
    drawn = plot.plot(now, 720, 300)
    assert max(dot.x for dot in drawn.dots) == pytest.approx(drawn.right)


@pytest.mark.parametrize("make", [lambda: page.live(state()), lambda: page.result(tuned(proof()))])
def test_the_page_is_sound_and_escapes_names(make: Any) -> None:
    text = make()
    root = ElementTree.fromstring(text)
    titles = [element.text or "" for element in root.iter("title")]
    assert len(titles) == 5
    assert any(title.startswith("2,400 requests/s") for title in titles)
    assert "currentColor" in text
    assert "<script" not in text


def test_progress_is_told_in_the_page_and_in_a_line() -> None:
    assert "30 of 120 s · 4 settings, 6 measurements" in page.live(state())
    assert "width:25.0%" in page.live(state())
    assert summary.progress(state()) == "digits: 25% best 2,400/s | workers: 2 workers"


def test_the_still_picture_is_a_png_with_the_colours_of_both() -> None:
    image = Image.open(io.BytesIO(still.png(tuned(proof())))).convert("RGB")
    assert image.width == still.WIDTH_PX
    colours = {colour for _, colour in image.getcolors(1_000_000) or []}
    assert {(0x2E, 0x9D, 0x5B), (0xE0, 0x86, 0x1A)} <= colours


def test_a_match_ends_as_soon_as_it_is_clear() -> None:
    def play(*ratios: float, **rules: Any) -> tuple[int, bool]:
        match = Match(**rules)
        for ratio in ratios:
            if not match.is_open:
                break
            match.add(ratio)
        assert not match.is_open
        return match.rounds, match.is_won

    assert play(1.8, 1.8) == (1, True)
    assert play(1.2, 1.3, 1.2) == (2, True)
    assert play(1.06, 1.05, 1.04) == (3, True)
    assert play(1.02, 1.01, 1.02) == (3, False)
    assert play(0.99) == (1, False)
    assert play(1.2, 0.9) == (2, False)
    assert play(1.2, 1.02, 0.99) == (3, False)
    assert play(0.98, 0.96, 1.0, is_leaner=True) == (3, True)
    assert play(0.7, is_leaner=True) == (1, False)
    assert play(1.04, 1.04, 1.04, least_gain=1.05) == (3, False)


def test_options_that_make_no_sense_are_refused() -> None:
    assert TuneOptions().goal == Goal(100.0)
    for wrong, text in (
        ({"p99_ms": 0}, "--p99-ms is 0"),
        ({"load": -1.0}, "--load is -1"),
        ({"seconds": 2}, "--seconds"),
    ):
        with pytest.raises(AutoTuneError, match=text):
            TuneOptions(**wrong)


def test_who_answers_the_last_requests_of_an_open_loop_late_is_behind() -> None:
    def is_behind(seconds: float, p50_ms: float, load: Load) -> bool:
        latency_ms = {"p50": p50_ms, "p99": 2 * p50_ms}
        outcome: Any = {"requests": 100, "errors": {}, "seconds": seconds, "rate": 50.0, "latency_ms": latency_ms}
        found = reading(outcome, load, 2.0, 2.5)
        assert found.throughput == 50
        return found.is_behind

    assert not is_behind(2.14, 50, Load(rate=50.0))
    assert is_behind(2.3, 100, Load(rate=50.0))
    assert not is_behind(2.3, 100, Load(clients=5))
