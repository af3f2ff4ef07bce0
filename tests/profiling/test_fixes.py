"""What `--ab` takes: settings, findings by number and name, several at once."""

from __future__ import annotations

import re

import pytest

from nbserve.errors import ConfigError, ProfileError
from nbserve.profiling.fixes import needs_findings, settings_of
from nbserve.trace.model import Finding


def finding(name, **settings):
    return Finding(name, "9 of 10", 9, 5, "It waits.", "Wait less.", 1.5, settings)


FOUND = [finding("autograd", inference_mode=True), finding("slow-preprocess"), finding("window", policy="adaptive")]


@pytest.mark.parametrize(
    ("fix", "settings"),
    [
        ("compile=inductor", {"compile": "inductor"}),
        ("compile", {"compile": "inductor"}),
        ("dtype", {"dtype": "bfloat16"}),
        ("dtype=float16", {"dtype": "float16"}),
        ("threads_per_worker=2", {"threads_per_worker": 2}),
        ("--threads-per-worker=2", {"threads_per_worker": 2}),
        ("inference_mode", {"inference_mode": True}),
        ("inference-mode=false", {"inference_mode": False}),
        ("max_batch_delay_ms=2", {"max_batch_delay_ms": 2.0}),
        ("compile=inductor, channels_last ,", {"compile": "inductor", "channels_last": True}),
        ("1", {"inference_mode": True}),
        (1, {"inference_mode": True}),
        ("autograd,3", {"inference_mode": True, "policy": "adaptive"}),
        ("window,max_batch_size=64", {"policy": "adaptive", "max_batch_size": 64}),
        (FOUND[0], {"inference_mode": True}),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
    ],
)
def test_a_fix_stands_for_settings(fix, settings):
    assert settings_of(fix, FOUND) == settings


@pytest.mark.parametrize(
    ("fix", "error", "said"),
    [
        ("4", ProfileError, "no finding 4; the last profile found 1. autograd, 2. slow-preprocess, 3. window"),
        ("0", ProfileError, "no finding 0"),
        ("faster", ProfileError, "no setting and no finding 'faster'"),
        (
            "2",
            ProfileError,
            "no setting changes slow-preprocess, so there is nothing to compare. What to do: Wait less.",
        ),
        (FOUND[1], ProfileError, "no setting changes"),
        ("workers", ProfileError, "say which workers to try: workers=VALUE"),
        ("", ProfileError, "say what to try"),
        ("threads_per_worker=many", ConfigError, "it takes a whole number"),
        ("inference_mode=maybe", ConfigError, "it takes true or false"),
        ("thread_per_worker=2", ConfigError, "did you mean threads_per_worker?"),
        ("max_batch_size=0", ConfigError, "the least it can be is 1"),
        ("dtype=bf16", ConfigError, "did you mean bfloat16?"),
    ],
)
def test_what_is_none_says_what_there_is(fix, error, said):
    with pytest.raises(error, match=re.escape(said)):
        settings_of(fix, FOUND)


def test_only_findings_need_a_profile():
    assert all(needs_findings(fix) for fix in (1, "1", "autograd", "compile,autograd"))
    assert not any(needs_findings(fix) for fix in ("compile", "dtype=float16,compile", {"compile": "eager"}, FOUND[0]))
