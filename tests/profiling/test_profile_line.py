"""`nbserve profile` and its options."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

import pytest

from nbserve.errors import ProfileError
from nbserve.options import ab_options_of, add_profile_options, profile_options_of
from nbserve.profiling.options import ProfileOptions
from nbserve.profiling.requests import Request

CELL = """\
class H(nbserve.Handler):
    def inference(self, batch):
        return batch
"""


def parsed(*words):
    parser = argparse.ArgumentParser()
    add_profile_options(parser)
    return parser.parse_args(words)


def nbserve(*words):
    command = [sys.executable, "-m", "nbserve", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_options_are_those_of_the_method():
    assert profile_options_of(parsed()) == ProfileOptions()
    words = ["--batches", "3", "--seconds", "1.5", "--worker", "all", "--load", "20", "--memory", "--stacks"]
    assert profile_options_of(parsed(*words, "--request", "[1]")) == ProfileOptions(
        batches=3,
        seconds=1.5,
        all_workers=True,
        load=20,
        request=b"[1]",
        content_type="application/json",
        memory=True,
        stacks=True,
    )
    assert profile_options_of(parsed("--worker", "1")).worker == 1
    compare = ab_options_of(parsed("--ab", "1", "--seconds", "5", "--clients", "4", "--apply", "--request", "[1]"))
    assert (compare.seconds, compare.clients, compare.apply) == (5, 4, True)
    assert compare.requests == [Request("application/json", b"[1]")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batches", "0"], "--batches is 0; it takes more than 0"),
        (["--load", "-1"], "--load is -1"),
        (["--worker", "two"], "it takes a worker's number, or all"),
        (["--content-type", "text/plain"], "there is none"),
        (["--startup", "--stacks"], "--startup and --stacks do not go together"),
        (["--startup", "--worker", "0"], "--startup and --worker do not go together"),
        (["--apply"], "say which with --ab"),
        (["--clients", "2"], "say which with --ab"),
        (["--ab", "1", "--memory"], "--memory and --ab do not go together"),
        (["--ab", "1", "--clients", "0"], "--clients is 0"),
        (["--ab", "1", "--seconds", "0"], "--seconds is 0"),
    ],
)
def test_what_cannot_go_together_is_said(words, said):
    values = parsed(*words)
    with pytest.raises(ProfileError, match=said):
        profile_options_of(values) if values.ab is None else ab_options_of(values)


@pytest.mark.process
def test_it_prints_where_the_time_goes(serve_cell, tmp_path):
    endpoint = serve_cell(CELL)
    endpoint.predict([1])
    done = nbserve("profile", endpoint.name, "--batches", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{endpoint.name}: " in done.stdout
    assert "the median request takes" in done.stdout
    assert "findings:" in done.stdout
    page = tmp_path / "p.html"
    done = nbserve("profile", endpoint.name, "--batches", "5", "-o", str(page))
    assert done.stdout.endswith(f"saved: {page}\n")
    assert "<script" in page.read_text()


@pytest.mark.process
def test_it_compares(serve_cell):
    endpoint = serve_cell(CELL)
    endpoint.predict([1])
    done = nbserve("profile", endpoint.name, "--ab", "queue_size=10", "--seconds", "0.5")
    assert done.stdout.startswith("queue_size=10: "), done.stderr
    assert "answers are the same" in done.stdout


@pytest.mark.process
def test_errors_are_one_line(serve_cell, tmp_path):
    endpoint = serve_cell(CELL)
    for words, said in (
        ((), "no request of it was recorded"),
        (("-o", str(tmp_path / "nowhere" / "p.html")), "there is no folder"),
        (("-o", "p.txt"), "ends in none of"),
        (("--startup",), "set NBSERVE_PROFILE=1"),
        (("--ab", "faster=1"), "there is no setting 'faster'"),
        (("--ab", "queue_size=3", "-o", "p.html"), "-o is about a recording"),
    ):
        done = nbserve("profile", endpoint.name, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.process
def test_an_interrupt_ends_the_recording(serve_cell, wait_until):
    endpoint = serve_cell(CELL)
    endpoint.predict([1])
    command = [sys.executable, "-m", "nbserve", "profile", endpoint.name, "--seconds", "3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        before = len(endpoint.spans())
        wait_until(lambda: len(endpoint.spans()) > before)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert endpoint.profile(batches=1).requests
