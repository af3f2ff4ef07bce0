"""dtype and channels_last: what a module computes in changes, what goes in and comes out does not. No process."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import nn

from nbserve.worker.tuning.casts import Casts, mapped

Pair = namedtuple("Pair", "first second")


class Outputs(OrderedDict[str, torch.Tensor]):
    """Like transformers' ModelOutput: a dict whose values are attributes too."""

    def __setitem__(self, key: str, value: torch.Tensor) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


@dataclasses.dataclass
class Record:
    logits: torch.Tensor
    name: str


class Witness(nn.Module):
    """Gives back what it was called with, after remembering it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))
        self.seen: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.seen = args, kwargs
        return args[0] if args else kwargs


def converted(module: nn.Module, dtype: torch.dtype | None = torch.bfloat16, channels_last: bool = False) -> nn.Module:
    casts = Casts(dtype, channels_last)
    casts.convert(module)
    module.forward = casts.around(module.forward, module.forward, is_inner=False)
    return module


def test_complex_buffers_keep_their_imaginary_part() -> None:
    module = Witness()
    module.register_buffer("frequencies", torch.polar(torch.ones(4), torch.arange(4.0)))
    expected = module.frequencies.clone()
    converted(module)
    assert torch.equal(module.frequencies, expected)


def test_tied_weights_stay_tied() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(4, 2), "head": nn.Linear(2, 4, bias=False)})
    module["head"].weight = module["embedding"].weight
    converted(module)
    assert module["head"].weight is module["embedding"].weight
    assert module["head"].weight.dtype is torch.bfloat16


def test_weights_and_buffers_are_converted_and_others_stay() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(2, 2), "norm": nn.BatchNorm1d(2)})
    converted(module)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.bfloat16}
    assert module["norm"].running_mean.dtype is torch.bfloat16
    assert module["norm"].num_batches_tracked.dtype is torch.int64


def test_arguments_are_cast_wherever_they_are_and_results_cast_back() -> None:
    module = converted(Witness())
    floats, integers = torch.ones(2), torch.ones(2, dtype=torch.int64)
    outputs = module([floats, {"ids": integers, "deep": (floats,)}], mask=floats, name="x")
    (seen,), keywords = module.seen
    assert seen[0].dtype is seen[1]["deep"][0].dtype is keywords["mask"].dtype is torch.bfloat16
    assert seen[1]["ids"] is integers
    assert keywords["name"] == "x"
    assert outputs[0].dtype is outputs[1]["deep"][0].dtype is torch.float32


@pytest.mark.parametrize(
    "holder",
    [
        Outputs(logits=torch.ones(1, dtype=torch.bfloat16)),
        Pair(torch.ones(1, dtype=torch.bfloat16), None),
        Record(torch.ones(1, dtype=torch.bfloat16), "x"),
        {"logits": torch.ones(1, dtype=torch.bfloat16), "n": 3},
        (torch.ones(1, dtype=torch.bfloat16), [torch.ones(1)]),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_tensors_keeps_its_type(holder: Any) -> None:
    changed = mapped(holder, torch.Tensor.float)
    assert type(changed) is type(holder)
    assert changed is not holder
    assert mapped(changed, torch.Tensor.float) is changed


def test_the_outputs_of_a_transformers_model_are_cast_and_their_attributes_too() -> None:
    from transformers.modeling_outputs import BaseModelOutput

    original = BaseModelOutput(last_hidden_state=torch.ones(1, dtype=torch.bfloat16))
    changed = mapped(original, torch.Tensor.float)
    assert type(changed) is BaseModelOutput
    assert changed.last_hidden_state.dtype is changed["last_hidden_state"].dtype is torch.float32
    assert original.last_hidden_state.dtype is torch.bfloat16


def test_other_threads_may_call_the_module_at_the_same_time() -> None:
    casts = Casts(torch.bfloat16, channels_last=False)
    module, dtypes = nn.Linear(1, 1), []
    casts.convert(module)
    plain = module.forward
    module.forward = casts.around(plain, plain, is_inner=True)

    def outer(x: torch.Tensor) -> torch.Tensor:
        thread = threading.Thread(target=lambda: dtypes.append(module(torch.ones(1, 1)).dtype))
        thread.start()
        thread.join()
        return x

    casts.around(outer, outer, is_inner=False)(torch.ones(1))
    assert dtypes == [torch.float32]


def test_a_module_inside_another_one_gets_and_gives_what_that_one_computes_in() -> None:
    casts = Casts(torch.bfloat16, channels_last=False)
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    casts.convert(model)
    for module, is_inner in ((model, False), (model[0], True)):
        module.forward = casts.around(module.forward, module.forward, is_inner=is_inner)
    assert model(torch.ones(1, 1)).dtype is torch.float32
    assert model[0](torch.ones(1, 1)).dtype is torch.float32


def test_a_call_that_raises_leaves_nothing_behind() -> None:
    module = converted(nn.Linear(2, 2))
    with pytest.raises(RuntimeError):
        module(torch.ones(3, 3))
    assert module(torch.ones(1, 2)).dtype is torch.float32


def test_channels_last_changes_the_layout_of_convolutions_and_images_and_no_number() -> None:
    module, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), torch.rand(2, 3, 8, 8)
    expected = module(images)
    converted(module, dtype=None, channels_last=True)
    seen: list[torch.Tensor] = []
    module[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.testing.assert_close(module(images), expected)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
