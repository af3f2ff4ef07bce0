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
        ({"compile": "reduce-overhead"}, "set compile_mode to it"),
        ({"compile": "off"}, "an empty text turns it off"),
        ({"compile": True}, "it takes a text"),
        ({"compile_mode": "fast"}, "'default', 'reduce-overhead', .* or 'max-autotune-no-cudagraphs'"),
        ({"compile": "", "compile_mode": "default"}, "set compile to 'inductor' too"),
        ({"dtype": "bf16"}, "did you mean bfloat16"),
        ({"dtype": "torch.float16"}, "did you mean float16"),
        ({"dtype": "int8"}, "'float32', 'bfloat16' or 'float16', or empty"),
    ],
)
def test_wrong_settings_say_what_is_right(settings, said):
    with pytest.raises(ConfigError, match=said):
        EndpointConfig().changed(settings)


def test_a_mode_selects_inductor_unless_a_backend_is_named():
    assert EndpointConfig().changed({"compile_mode": "max-autotune"}).compile == "inductor"
    tuned = EndpointConfig().changed({"compile": "mine", "compile_mode": "default"})
    assert tuned.changed({"compile_mode": "max-autotune"}).compile == "mine"
    assert tuned.changed({"compile": ""}) == EndpointConfig()


@pytest.mark.parametrize("name", ["isolate_errors", "channels_last", "inference_mode"])
def test_a_switch_can_be_written_as_an_assignment(name):
    option = name.replace("_", "-")
    assert options.as_option(f"{name}=true") == f"--{option}"
    assert options.as_option(f"{name}=0") == f"--no-{option}"


def test_every_setting_has_a_help_text():
    fields = dataclasses.fields(EndpointConfig) + dataclasses.fields(ServerConfig)
    assert {field.name for field in fields} == set(options.HELP_TEXTS)


@pytest.mark.parametrize(
    ("settings", "tuned"),
    [
        ({}, {}),
        ({"workers": 1, "max_batch_size": 64}, {"max_batch_size": 64}),
        ({"max_batch_delay_ms": 5}, {"max_batch_delay_ms": 5.0, "policy": "window"}),
        ({"max_batch_delay_ms": 5, "policy": "adaptive"}, {"max_batch_delay_ms": 5.0, "policy": "adaptive"}),
        ({"policy": "window"}, {"policy": "window"}),
        ({"compile_mode": "default"}, {"compile": "inductor", "compile_mode": "default"}),
        ({"isolate_errors": False}, {"isolate_errors": False}),
    ],
)
def test_what_was_tuned_laid_over_the_defaults_is_the_same_again(settings, tuned):
    config = EndpointConfig().changed(settings)
    assert config.tuned() == tuned
    assert EndpointConfig().changed(config.tuned()) == config
