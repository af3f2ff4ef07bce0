"""Applies the settings `compile`, `dtype`, `channels_last` and `inference_mode` to a handler. Runs in the worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nbserve.bundle.bundle import Bundle
from nbserve.errors import TuningError
from nbserve.handler import Context
from nbserve.worker.debug.hooks import log
from nbserve.worker.metrics import UserMetrics
from nbserve.worker.runner import Runner
from nbserve.worker.spec import WorkerSpec
from nbserve.worker.stages import Pipeline, Watch
from nbserve.worker.tuning import compiling, shipped
from nbserve.worker.tuning.casts import Casts, Forward
from nbserve.worker.tuning.modules import inner_ones, is_compiled, modules_of, tunable
from nbserve.worker.tuning.warmup import CompiledFails, WarmUp, rehearsal


def prepare(spec: WorkerSpec) -> None:
    """What must be said before user code is imported."""
    if spec.compile:
        compiling.prepare(spec.device, spec.compile_cache)
    if spec.compile == "inductor":
        shipped.use(Path(spec.bundle), spec.device)


def tune(runner: Runner, spec: WorkerSpec, metrics: UserMetrics) -> None:
    """Have an initialized handler run as the settings say; raises TuningError where that cannot be."""
    if spec.inference_mode:
        runner.pipeline = in_inference_mode(runner.pipeline)
    if spec.compile or spec.dtype or spec.channels_last:
        tuning = Tuning(runner.handler, spec)
        tuning.apply()
        if spec.compile:
            tuning.warm_up(runner, metrics)


def in_inference_mode(pipeline: Pipeline) -> Pipeline:
    """The pipeline under torch.inference_mode, which is entered once for all stages."""

    def run(bodies: list[Any], context: Context, watch: Watch) -> Sequence[Any]:
        with torch.inference_mode():
            return pipeline(bodies, context, watch)

    return run


class Tuning:
    """What the settings change in the modules of one handler: their weights, and the `forward` of each."""

    def __init__(self, handler: Any, spec: WorkerSpec) -> None:
        self._spec = spec
        self._modules = _modules(handler, spec)
        # For each module, its forward but for the compiler, and its forward.
        self._forwards: list[tuple[nn.Module, Forward, Forward]] = []

    def apply(self) -> None:
        spec = self._spec
        if spec.compile:
            compiling.check_backend(spec.compile)
        casts = Casts(getattr(torch, spec.dtype) if spec.dtype else None, spec.channels_last)
        casts_at_all = bool(spec.dtype or spec.channels_last)
        inner = inner_ones(self._modules)
        for place, module in self._modules.items():
            written = module.forward
            tuned = self._compiled(place, module)
            if casts_at_all:
                casts.convert(module)
                tuned = casts.around(tuned, written, is_inner=place in inner)
                written = casts.around(written, written, is_inner=place in inner)
            self._forwards.append((module, written, tuned))
        self._use(tuned=True)
        if casts_at_all:
            self._log_conversion()

    def warm_up(self, runner: Runner, metrics: UserMetrics) -> None:
        """Compile for the sizes that batches will have, by running recorded requests."""
        backend, began = self._spec.compile, time.monotonic()
        recorded = Bundle.read(self._spec.recorded or self._spec.bundle).golden()
        if not recorded:
            log(f"compiled by {backend}: no request is recorded yet, so the first ones will wait for the compiler")
            return
        try:
            with rehearsal(runner, metrics):
                sizes = WarmUp(runner, self.as_written).run(recorded, self._spec.max_batch_size)
        except CompiledFails as failed:
            raise compiling.compile_error(backend, failed.error) from failed.error
        compiling.end_helpers()
        log(f"compiled by {backend} in {time.monotonic() - began:.1f} s: {_warmed(sizes)}{compiling.statistics()}")

    @contextlib.contextmanager
    def as_written(self) -> Iterator[None]:
        """Run the modules uncompiled meanwhile."""
        self._use(tuned=False)
        try:
            yield
        finally:
            self._use(tuned=True)

    def _use(self, *, tuned: bool) -> None:
        for module, written, compiled in self._forwards:
            # Not a method of the class: HF's own `model.forward = torch.compile(model.forward)` does the same.
            module.forward = compiled if tuned else written

    def _compiled(self, place: str, module: nn.Module) -> Forward:
        if not self._spec.compile:
            return module.forward
        if is_compiled(module):
            log(f"{place} is compiled by the cell already, and stays so")
            return module.forward
        return compiling.compiled(module.forward, self._spec.compile, self._spec.compile_mode)

    def _log_conversion(self) -> None:
        weights = {id(each): each for module in self._modules.values() for each in module.parameters()}
        megabytes = sum(each.nbytes for each in weights.values()) / 1e6
        computes = " and ".join(filter(None, [self._spec.dtype, "channels_last" * self._spec.channels_last]))
        log(f"{', '.join(self._modules)}: {computes}; the weights are copies of this worker's own, {megabytes:.1f} MB")


def _warmed(sizes: list[int]) -> str:
    if not sizes:
        return "no recorded request is answered without an error, so the first ones will wait for the compiler"
    return f"batches of {', '.join(map(str, sizes))} are warm"


def _modules(handler: Any, spec: WorkerSpec) -> dict[str, nn.Module]:
    found = modules_of(handler)
    modules = tunable(found)
    if not modules:
        names = [name for name in ("compile", "dtype", "channels_last") if getattr(spec, name)]
        held = f"only {', '.join(found)}, made by TorchScript" if found else "none"
        raise TuningError(
            f"{' and '.join(names)} would change nothing: of torch modules {type(handler).__name__} holds {held}. "
            "Keep the module in an attribute, such as self.model, or turn the setting off"
        )
    for place in found.keys() - modules.keys():
        log(f"{place} is left as it is: it has no parameters, or is made by TorchScript")
    return modules
