"""Aligned files, and `load_weights` against the ordinary way of loading a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from nbserve.bundle.mapped import MappedFile, layout
from nbserve.bundle.weights import load_weights
from nbserve.errors import BundleError, WeightsError


class Everything(nn.Module):
    """Ties, both kinds of buffers, plain tensors, `.item()` in the constructor, a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        rates = [x.item() for x in torch.linspace(0, 0.5, 3)]
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Dropout(rate)) for rate in rates])
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight
        shared = nn.Parameter(torch.randn(8))
        self.first, self.second = shared, shared
        self.frozen = nn.Parameter(torch.ones(8), requires_grad=False)
        self.register_buffer("positions", torch.arange(8.0), persistent=False)
        self.register_buffer("ones_like_head", torch.ones_like(self.head.weight), persistent=False)
        self.plain = torch.tensor([0.25])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) * self.first + self.second * self.frozen + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)) * self.plain * self.ones_like_head.mean()


@pytest.fixture
def trained() -> Everything:
    torch.manual_seed(5)
    model = Everything()
    model(torch.arange(4)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    return model.eval()


SAVERS: dict[str, Callable[[nn.Module, Path], Any]] = {
    "torch.save": lambda model, path: torch.save(model.state_dict(), path),
    "torch.save, old format": lambda model, path: torch.save(
        model.state_dict(), path, _use_new_zipfile_serialization=False
    ),
    "training checkpoint": lambda model, path: torch.save({"epoch": 3, "state_dict": model.state_dict()}, path),
    "safetensors, tied weights once": lambda model, path: save_model(model, str(path)),
    "safetensors": lambda model, path: save_file({k: v.clone() for k, v in model.state_dict().items()}, path),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_it_answers_as_the_model_that_was_saved(saver: str, trained: Everything, tmp_path: Path) -> None:
    SAVERS[saver](trained, tmp_path / "w")
    loaded = load_weights(Everything, tmp_path / "w").eval()
    assert torch.equal(loaded(torch.arange(4)), trained(torch.arange(4)))
    assert loaded.head.weight is loaded.embed.weight
    assert loaded.first is loaded.second
    assert not loaded.frozen.requires_grad
    assert loaded.head.weight.requires_grad
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers(), loaded.plain])
    assert list(loaded.state_dict()) == list(trained.state_dict())


def test_parameters_are_mapped_not_copied(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(64, 64), "bias": torch.zeros(64)}, tmp_path / "w")
    loaded = load_weights(lambda: nn.Linear(64, 64), str(tmp_path / "w"))
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split()[0].split("-") for line in maps if str(tmp_path / "w") in line]
    assert any(int(a, 16) <= loaded.weight.data_ptr() < int(b, 16) for a, b in mapped)
    with torch.no_grad():
        loaded.weight.zero_()
    assert load_file(tmp_path / "w")["weight"].sum() == 64 * 64


def test_initialisation_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(nn.Linear(4, 4).state_dict(), tmp_path / "w")
    seen = []
    original = nn.init.kaiming_uniform_
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda t, **kw: seen.append(t.device.type) or original(t, **kw))
    load_weights(lambda: nn.Linear(4, 4), tmp_path / "w")
    assert seen == ["meta"]
    assert not nn.Linear(2, 2).weight.is_meta


def test_another_dtype_becomes_that_of_the_module(tmp_path: Path) -> None:
    save_file(nn.Linear(4, 4).half().state_dict(), tmp_path / "w")
    assert load_weights(lambda: nn.Linear(4, 4), tmp_path / "w").weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"weight": torch.ones(2, 2)}, r"lacks bias"),
        ({"weight": torch.ones(2, 2), "bias": torch.ones(2), "more": torch.ones(1)}, r"has unexpected more"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"weight \(\[3, 2\], the module has \[2, 2\]\)"),
        ({"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, r"All its names start with 'module\.'"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, torch.Tensor], text: str, tmp_path: Path) -> None:
    save_file(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=text):
        load_weights(lambda: nn.Linear(2, 2), tmp_path / "w")


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        load_weights(lambda: nn.Linear(2, 2), tmp_path / "w")
    (tmp_path / "w").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no state dict that can be loaded safely"):
        load_weights(lambda: nn.Linear(2, 2), tmp_path / "w")
    torch.save({"a": 1}, tmp_path / "w")
    with pytest.raises(WeightsError, match="holds a dict with a, not one state dict"):
        load_weights(lambda: nn.Linear(2, 2), tmp_path / "w")
    torch.save(nn.Linear(2, 2), tmp_path / "w")
    with pytest.raises(WeightsError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load_weights(lambda: nn.Linear(2, 2), tmp_path / "w")


def test_files_are_aligned_and_ordinary_safetensors(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "bias": torch.randn(10),
        "large": torch.randn(64, 16),
        "empty": torch.empty(0, 4),
        "half": torch.randn(5).half(),
        "doubles": torch.randn(3).double(),
        "f8": torch.randn(64).to(torch.float8_e4m3fn),
        "flag": torch.tensor(True),
        "many": torch.randn(32, 32).bfloat16(),
    }
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"".join(layout(tensors)))
    mapped = MappedFile.open(path)
    assert mapped.data_at % 4096 == 0
    for key, tensor in mapped.tensors().items():
        assert torch.equal(tensor.view(-1).view(torch.uint8), tensors[key].view(-1).view(torch.uint8)), key
        whole = tensors[key].nbytes % 64 == 0 and tensors[key].nbytes
        assert tensor.data_ptr() % (64 if whole else tensor.itemsize) == 0 or not tensor.numel(), key
    assert set(load_file(path)) == set(tensors)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "w"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(BundleError, match="stores x as F4"):
        MappedFile.open(path).tensors()
