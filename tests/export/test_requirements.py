"""From the pins of a notebook to those of an image."""

from __future__ import annotations

import pytest

from nbserve.capture.requirements import requirements
from nbserve.export.requirements import Pin, lock, torch_index

CPU = "nbserve-torch==0.1.0\nnumpy==2.3.1\ntorch==2.9.0+cpu\ntorchvision==0.24.0+cpu\n"
CUDA = (
    "cuda-bindings==13.0.1\nnbserve-torch==0.1.0\nnumpy==2.3.1\nnvidia-cublas==13.0.0\nnvidia-ml-py==13.1\n"
    "torch==2.9.0+cu130\ntriton==3.5.0\n"
)
INDEX = "https://download.pytorch.org/whl"


def test_a_build_of_torch_becomes_a_plain_pin_and_its_index() -> None:
    made = lock(CPU, is_gpu=False)
    assert made.text == "nbserve-torch==0.1.0\nnumpy==2.3.1\ntorch==2.9.0\ntorchvision==0.24.0\n"
    assert (made.torch, made.index_url, made.notes) == ("2.9.0", f"{INDEX}/cpu", ())


def test_without_a_gpu_cuda_stays_away() -> None:
    made = lock(CUDA, is_gpu=False)
    assert made.text.split() == ["nbserve-torch==0.1.0", "numpy==2.3.1", "nvidia-ml-py==13.1", "torch==2.9.0"]
    assert made.index_url == f"{INDEX}/cpu"


def test_with_a_gpu_the_pins_of_cuda_stay_and_fit_their_torch() -> None:
    made = lock(CUDA, is_gpu=True)
    assert {"nvidia-cublas==13.0.0", "triton==3.5.0", "cuda-bindings==13.0.1", "torch==2.9.0"} <= set(made.text.split())
    assert made.index_url == f"{INDEX}/cu130"


@pytest.mark.parametrize(("text", "index_url"), [(CUDA, f"{INDEX}/cu126"), (CUDA, ""), (CPU, None)])
def test_another_torch_brings_the_cuda_that_it_needs(text: str, index_url: str | None) -> None:
    made = lock(text, is_gpu=True, index_url=index_url)
    assert not any(pin.name.startswith(("nvidia-cu", "triton", "cuda-")) for pin in made.pins)
    assert made.index_url == (index_url or "")


def test_what_the_handler_imports_itself_stays() -> None:
    assert "triton==3.5.0" in lock(CUDA, is_gpu=False, imports=["triton"]).text
    assert "triton" not in lock(CUDA, is_gpu=False).text


@pytest.mark.parametrize(
    ("version", "is_gpu", "index"),
    [
        ("2.9.0", False, f"{INDEX}/cpu"),
        ("2.9.0", True, ""),
        ("2.9.0+cpu", True, ""),
        ("2.9.0+cu128", True, f"{INDEX}/cu128"),
        ("2.9.0+rocm6.4", True, f"{INDEX}/rocm6.4"),
        ("2.10.0.dev20260101+cu130", True, f"{INDEX}/nightly/cu130"),
        ("2.10.0.dev20260101", False, f"{INDEX}/nightly/cpu"),
    ],
)
def test_each_torch_has_an_index(version: str, is_gpu: bool, index: str) -> None:
    assert torch_index(version, is_gpu) == index


def test_an_index_that_is_given_wins_and_an_empty_one_is_pips_own() -> None:
    assert lock(CPU, is_gpu=False, index_url="https://mirror.example/pytorch").index_url.startswith("https://mirror")
    assert lock(CPU, is_gpu=False, index_url="").index_url == ""


def test_a_wheel_takes_the_place_of_its_pin_and_a_local_version_is_told() -> None:
    wheels = {"nbserve-torch": Pin("nbserve-torch", "0.1.0", "nbserve_torch-0.1.0-py3-none-any.whl")}
    made = lock(CPU + "mine==1.0+g1234\n", is_gpu=False, wheels=wheels)
    lines = made.text.split()
    assert lines[:3] == ["mine==1.0+g1234", "./wheels/nbserve_torch-0.1.0-py3-none-any.whl", "numpy==2.3.1"]
    assert made.notes[0].startswith("mine 1.0+g1234: a local version")


def test_the_pins_of_this_environment_are_complete_and_drag_no_extra_in() -> None:
    made = lock(requirements(["torch"]), is_gpu=False)
    names = {pin.name.lower().replace("_", "-") for pin in made.pins}
    assert {"nbserve-torch", "torch", "numpy", "safetensors", "httptools", "tornado", "sympy", "jinja2"} <= names
    assert not names & {"jupyterlab", "ipykernel", "ipywidgets", "ray", "pytest", "debugpy", "viztracer", "matplotlib"}
    assert all(pin.version and "+" not in pin.version for pin in made.pins)
