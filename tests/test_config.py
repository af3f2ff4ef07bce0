from __future__ import annotations

import dataclasses

import pytest

from nbserve import options
from nbserve.config import EndpointConfig, ServerConfig
from nbserve.errors import ConfigError


def test_a_delay_selects_the_window_unless_a_policy_is_named():
    assert EndpointConfig().changed({"max_batch_delay_ms": 5}).policy == "window"
    both = EndpointConfig().changed({"max_batch_delay_ms": 5, "policy": "adaptive"})
    assert (both.policy, both.max_batch_delay_ms) == ("adaptive", 5.0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_batchsize": 2}, "did you mean max_batch_size"),
        ({"zzz": 2}, "there are: workers"),
        ({"workers": 0}, "the least it can be is 1"),
        ({"workers": 1.5}, "a whole number"),
        ({"workers": True}, "a whole number"),
        ({"response_timeout_s": float("nan")}, "nan"),
        ({"policy": "greedy"}, "'adaptive' or 'window'"),
        ({"device": "gpu"}, "'cuda:0'"),
        ({"device": "cpu:1"}, "'cpu'"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, said):
    with pytest.raises(ConfigError, match=said):
        EndpointConfig().changed(settings)


def test_every_setting_has_a_help_text():
    fields = dataclasses.fields(EndpointConfig) + dataclasses.fields(ServerConfig)
    assert {field.name for field in fields} == set(options.HELP_TEXTS)
