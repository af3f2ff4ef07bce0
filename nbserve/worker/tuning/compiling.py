"""torch.compile for the modules of a handler: which backends there are, and what to do when one fails. Worker."""

from __future__ import annotations

import difflib
import getpass
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch

from nbserve.errors import TuningError
from nbserve.worker.tracebacks import summary_of
from nbserve.worker.tuning import cxx
from nbserve.worker.tuning.casts import Forward
from nbserve.worker.tuning.modules import COMPILED_MARK

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_TORCH_FOLDER = str(Path(torch.__file__).parent) + "/"


class Package(NamedTuple):
    """What brings a backend: the module that registers it when it is imported, and how to install it."""

    module: str
    install: str


PACKAGES = {
    "openxla": Package("torch_xla", "torch_xla"),
    "tensorrt": Package("torch_tensorrt", "torch-tensorrt"),
    "torch_tensorrt": Package("torch_tensorrt", "torch-tensorrt"),
    "onnxrt": Package("onnxscript", "onnxruntime onnxscript"),
    "openvino": Package("openvino.torch", "openvino"),
}


def prepare(device: str, cache: str | None) -> None:
    """Say where inductor keeps what it made, before anything imports it. What the user's environment says stands."""
    if cache is not None and os.environ.get(_CACHE, _default_cache()) == _default_cache():
        Path(cache).mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[_CACHE] = cache
    # They are on by themselves from torch 2.6 on.
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "1")
    if not device.startswith("cuda"):
        # Else it starts processes for kernels that only GPUs have.
        os.environ.setdefault("TORCH_WARM_POOL", "0")


def _default_cache() -> str:
    """What torch writes into the environment itself as soon as some import asks for the folder."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    return str(Path(tempfile.gettempdir(), f"torchinductor_{user}"))


def check_backend(name: str) -> None:
    """Raise TuningError unless torch.compile knows the backend, which an installed package may bring."""
    package = PACKAGES.get(name)
    if package is not None:
        _import(name, package)
    known = torch._dynamo.list_backends(None)
    if name == "onnxrt" and name not in known:
        from nbserve.worker.tuning import onnxrt

        onnxrt.register()
    if name in (*known, "onnxrt"):
        return
    text = f"compile is {name!r}, which torch {torch.__version__} does not know"
    if package is not None:
        raise TuningError(f"{text}, nor does {package.module} bring it: another release of one of them may")
    near = difflib.get_close_matches(name, [*known, *PACKAGES], n=1)
    there = ", ".join(each for each in known if "TESTING" not in each)
    hint = f"did you mean {near[0]}?" if near else f"there are: {there}"
    raise TuningError(f"{text}: {hint}")


def compiled(forward: Forward, backend: str, mode: str) -> Forward:
    """Compiled on its first calls; the dimensions that have changed from call to call are left open."""
    call = torch.compile(forward, backend=backend, mode=mode or None)
    setattr(call, COMPILED_MARK, True)
    return call


def statistics() -> str:
    """What torch.compile says it made in this process."""
    counters = torch._dynamo.utils.counters
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    if not graphs:
        return "; nothing was compiled, as the handler calls no module of its own by `self.model(...)`"
    return f"; {graphs} graphs, {breaks} graph breaks"


def end_helpers() -> None:
    """End the processes that inductor started to compile kernels for GPUs."""
    if "torch._inductor.async_compile" in sys.modules:
        from torch._inductor.async_compile import shutdown_compile_workers

        shutdown_compile_workers()


def compile_error(backend: str, error: BaseException | None) -> TuningError:
    """What to do about an error that only the compiled handler raises; the cause keeps the user's lines."""
    if error is None:
        return TuningError(f"compiled by {backend!r}, the handler answers a recorded request with an error")
    failed = TuningError(
        f"{_advice(backend, list(_chain(error)))} [{summary_of(getattr(error, 'inner_exception', error))}]"
    )
    for each in _chain(error):
        each.__traceback__ = _without_torch(each.__traceback__)
    failed.__cause__ = error
    return failed


def _import(backend: str, package: Package) -> None:
    try:
        importlib.import_module(package.module)
    except ImportError as error:
        text = f"compile is {backend!r}, which needs a package: pip install {package.install} ({error})"
        raise TuningError(text) from None


def _advice(backend: str, errors: list[BaseException]) -> str:
    kinds = {type(each).__name__ for each in errors}
    missing = next((each for each in errors if isinstance(each, ImportError)), None)
    if "InvalidCxxCompiler" in kinds or ("CppCompileError" in kinds and _only_remembers()):
        return (
            "compile is 'inductor', which needs a C++ compiler here and finds none: install g++ "
            "(apt-get install g++), or name one in CXX. For a container, export with an image that has one "
            f"(--base docker.io/library/python:{sys.version_info.major}.{sys.version_info.minor}-bookworm)"
        )
    if "CppCompileError" in kinds:
        return "compile is 'inductor', and the C++ compiler failed on what it wrote: is it a recent one?"
    if any("failed to map segment" in str(each) for each in errors):
        return (
            "compile is 'inductor', and nothing may be run from the folder where it keeps what it made: in a container "
            "take --tmpfs /tmp:exec, or set NBSERVE_CACHE_DIR to another folder"
        )
    if "TritonMissing" in kinds:
        return "compile is 'inductor', which needs triton for a GPU: pip install triton"
    if missing is not None:
        return f"compile is {backend!r}, which lacks a package ({missing})"
    return f"the handler works as it is written, but not compiled by {backend!r}: turn compile off, or try 'aot_eager'"


def _only_remembers() -> bool:
    """Whether all that can be compiled is what was compiled before the bundle was shipped."""
    return os.environ.get("CXX") == cxx.NAME and not cxx.has_compiler()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += [each.__context__, each.__cause__, getattr(each, "inner_exception", None)]


def _without_torch(traceback: TracebackType | None) -> TracebackType | None:
    """The frames that are the user's: torch has a hundred of its own between two of them."""
    if traceback is None:
        return None
    rest = _without_torch(traceback.tb_next)
    if traceback.tb_frame.f_code.co_filename.startswith(_TORCH_FOLDER):
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
