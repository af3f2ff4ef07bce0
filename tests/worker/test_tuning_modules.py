"""Which modules of a handler the settings are applied to. No process."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import nn

from nbserve.handler import Handler
from nbserve.worker.tuning.modules import inner_ones, modules_of, tunable


class Holder(Handler):
    shared = nn.Linear(1, 1)

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def places(**attributes: Any) -> list[str]:
    return [place for place in modules_of(Holder(**attributes)) if place != "shared"]


def test_modules_are_found_in_attributes_and_one_level_deeper() -> None:
    one, two, three, four = (nn.Linear(1, 1) for _ in range(4))
    pipeline = types.SimpleNamespace(model=four, tokenizer=object())
    assert places(model=one, heads=[two], by_name={"a": three}, pipe=pipeline) == [
        "model",
        "heads[0]",
        "by_name['a']",
        "pipe.model",
    ]


def test_a_module_counts_once_and_the_context_is_no_place() -> None:
    one = nn.Linear(1, 1)
    context = types.SimpleNamespace(model=nn.Linear(1, 1))
    assert places(model=one, models=[one], context=context, text="x", number=1) == ["model"]


def test_a_module_of_the_class_is_found() -> None:
    assert list(modules_of(Holder())) == ["shared"]


def test_a_module_among_the_names_of_the_cell_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "net", nn.Linear(1, 1))
    assert places() == ["net"]


def test_transforms_without_parameters_are_left_alone_unless_there_is_nothing_else() -> None:
    model, transform = nn.Linear(1, 1), nn.Flatten()
    assert list(tunable({"transform": transform, "model": model})) == ["model"]
    assert list(tunable({"transform": transform})) == ["transform"]


@pytest.mark.filterwarnings("ignore")
def test_scripted_modules_are_left_alone() -> None:
    assert not tunable({"model": torch.jit.script(nn.Linear(1, 1))})


def test_a_module_that_is_part_of_another_one_is_known() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    assert inner_ones({"model": model, "encoder": model[0], "other": nn.Linear(1, 1)}) == {"encoder"}
