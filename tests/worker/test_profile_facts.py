"""What a worker tells of a handler and its modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nbserve.handler import Handler
from nbserve.worker.profile.facts import facts_of, has_bf16, module_facts, nodes_made


class Staged(Handler):
    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.1), nn.Dropout(0.0))

    def preprocess(self, requests: list[Any]) -> Any:
        return torch.tensor(requests)


class Whole(Handler):
    def handle(self, requests: list[Any], context: Any) -> list[Any]:
        return requests


def test_a_module_in_train_mode_names_the_layers_that_mind() -> None:
    [module] = facts_of(Staged(), "cpu")["modules"]
    assert (module["name"], module["type"], module["training"]) == ("model", "Sequential", True)
    assert module["training_layers"] == ["BatchNorm1d", "Dropout"]
    assert (module["parameters"], module["parameter_bytes"]) == (4 * 3 + 3 + 3 + 3, 4 * 21)
    assert (module["dtype"], module["device"], module["compiled"]) == ("float32", "cpu", False)


def test_a_module_in_eval_mode_names_none() -> None:
    handler = Staged()
    handler.model.eval()
    [module] = facts_of(handler, "cpu")["modules"]
    assert (module["training"], module["training_layers"]) == (False, [])


@pytest.mark.parametrize(
    ("layer", "minds"),
    [
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.LSTM(4, 4, num_layers=2, dropout=0.2), True),
        (nn.InstanceNorm1d(4, track_running_stats=True), True),
        (nn.InstanceNorm1d(4), False),
        (nn.LayerNorm(4), False),
        (nn.RReLU(), True),
    ],
)
def test_only_layers_that_compute_otherwise_in_train_mode_count(layer: nn.Module, minds: bool) -> None:
    assert (type(layer).__name__ in module_facts("model", layer)["training_layers"]) is minds


def test_a_module_without_weights_has_no_dtype() -> None:
    facts = module_facts("model", nn.ReLU())
    assert (facts["parameters"], facts["parameter_bytes"], facts["dtype"], facts["device"]) == (0, 0, "", "")


def test_most_weights_decide_on_the_dtype() -> None:
    module = nn.Sequential(nn.Linear(8, 8).to(torch.bfloat16), nn.Linear(1, 1))
    assert module_facts("model", module)["dtype"] == "bfloat16"


def test_stages_and_overrides_are_told() -> None:
    staged, whole = facts_of(Staged(), "cpu"), facts_of(Whole(), "cpu")
    assert (staged["stages"], staged["overrides"]) == (True, ["preprocess"])
    assert (whole["stages"], whole["overrides"]) == (False, ["handle"])
    place = staged["handler"]
    assert (place["name"], place["line"]) == ("Staged", Staged.preprocess.__code__.co_firstlineno)
    assert place["file"].endswith("tests/worker/test_profile_facts.py")
    assert place["methods"] == {"preprocess": [place["file"], place["line"]]}


def test_a_handler_of_torchserve_has_no_stages() -> None:
    class Foreign:
        def handle(self, data: Any, context: Any) -> Any:
            return data

    facts = facts_of(Foreign(), "cpu")
    assert (facts["stages"], facts["overrides"], facts["modules"]) == (False, ["handle"], [])


def test_a_handler_without_code_of_its_own_has_a_name() -> None:
    place = facts_of(Handler(), "cpu")["handler"]
    assert place == {"name": "Handler", "file": "", "line": 0, "methods": {}}


def test_the_facts_name_torch_and_its_threads() -> None:
    facts = facts_of(Handler(), "cpu")
    assert facts["torch"] == torch.__version__
    assert facts["num_threads"] == torch.get_num_threads()
    assert facts["cpu_capability"]
    assert facts["has_bf16"] is has_bf16("cpu")


def test_nodes_are_made_where_autograd_is_on() -> None:
    layer = nn.Linear(2, 2)
    before = nodes_made()
    with torch.no_grad():
        layer(torch.ones(1, 2))
    with torch.inference_mode():
        layer(torch.ones(1, 2))
    assert nodes_made() == before
    layer(torch.ones(1, 2))
    assert nodes_made() > before
