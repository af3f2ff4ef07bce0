"""The settings that tune a handler, applied by real workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from nbserve.bundle.bundle import Bundle
from tests.worker.conftest import needs_compiler

pytestmark = pytest.mark.process
PATIENCE_S = 240.0
WriteBundle = Callable[..., Path]

MODEL = """
import torch
import nbserve.handler as nbserve

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([2.0]))
        self.batches = []

    @torch.compiler.disable
    def note(self, x):
        self.batches.append(len(x))

    def forward(self, x):
        self.note(x)
        return x * self.scale
"""
NUMBERS = (
    MODEL
    + """
class Numbers(nbserve.Handler):
    def initialize(self, context):
        self.model = Model()

    def inference(self, batch):
        return self.model(batch)

    def postprocess(self, outputs):
        return [[float(each), self.model.batches, str(self.model.scale.dtype)] for each in outputs]
"""
)


def record(folder: Path, *values: Any, status: int = 200) -> Path:
    for value in values:
        Bundle.read(folder).record(orjson.dumps(value), "application/json", status, b"null", "application/json")
    return folder


def ready(nursery: Any, folder: Path, **spec: Any) -> Any:
    """A worker that is ready; compilers take their time on a busy machine."""
    worker = nursery.start(folder, **spec)
    worker.channel.settimeout(PATIENCE_S)
    event = worker.event()
    assert event["event"] == "ready", event
    return worker


def test_weights_are_converted_and_answers_stay(nursery: Any, bundle: WriteBundle) -> None:
    worker = ready(nursery, bundle(NUMBERS), dtype="bfloat16", channels_last=True)
    assert worker.ask(1.5) == [[3.0, [1], "torch.bfloat16"]]
    assert "model: bfloat16 and channels_last; the weights are copies of this worker's own, 0.0 MB" in worker.log()


STAGES = """
import torch

class Stages{base}:
    def __init__(self):
        self.seen = []

    def preprocess(self, requests):
        self.seen = [torch.is_inference_mode_enabled()]
        return requests

    def inference(self, batch):
        self.seen.append(torch.is_inference_mode_enabled())
        return batch

    def postprocess(self, outputs):
        return [self.seen + [torch.is_inference_mode_enabled()] for _ in outputs]

    {handle}
"""
TORCHSERVE = "def handle(self, data, context): return self.postprocess(self.inference(self.preprocess(data)))"


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(
    ("base", "handle"), [("(__import__('nbserve.handler').handler.Handler)", ""), ("", TORCHSERVE)]
)
def test_inference_mode_is_around_all_stages(
    nursery: Any, bundle: WriteBundle, base: str, handle: str, mode: bool
) -> None:
    worker = ready(nursery, bundle(STAGES.format(base=base, handle=handle)), inference_mode=mode)
    assert worker.ask(1) == [[mode] * 3]


def test_recorded_requests_warm_every_size_before_the_worker_is_ready(nursery: Any, bundle: WriteBundle) -> None:
    folder = record(bundle(NUMBERS), 1.0, 2.0, 3.0)
    worker = ready(nursery, folder, compile="eager", max_batch_size=6)
    assert worker.ask(1.5)[0][:2] == [3.0, [1, 1, 1, 2, 4, 6, 1]]
    assert "batches of 1, 2, 4, 6 are warm" in worker.log()


GRAPHS = (
    MODEL.replace("        self.note(x)\n", "")
    + """
class Graphs(nbserve.Handler):
    def initialize(self, context):
        self.model = Model()
        self.parts = [self.model]

    def postprocess(self, outputs):
        return [torch._dynamo.utils.counters["stats"]["unique_graphs"] for _ in outputs]
"""
)


def test_sizes_between_the_warm_ones_compile_nothing_more(nursery: Any, bundle: WriteBundle) -> None:
    folder = record(bundle(GRAPHS), [1.0, 2.0], [3.0, 4.0])
    worker = ready(nursery, folder, compile="aot_eager", max_batch_size=8)
    graphs = {count for size in range(1, 9) for count in worker.ask(*[[1.0, 2.0]] * size)}
    assert graphs == {2}
    assert "2 graphs, 0 graph breaks" in worker.log()


def test_another_bundle_can_lend_its_recorded_requests(nursery: Any, bundle: WriteBundle) -> None:
    lender = record(bundle(NUMBERS, "lender"), 1.0)
    worker = ready(nursery, bundle(NUMBERS), compile="eager", max_batch_size=2, recorded=str(lender))
    assert worker.ask(2)[0][1] == [1, 2, 1]


def test_without_recorded_requests_the_log_says_who_waits(nursery: Any, bundle: WriteBundle) -> None:
    worker = ready(nursery, bundle(NUMBERS), compile="eager")
    assert "no request is recorded yet, so the first ones will wait for the compiler" in worker.log()
    assert worker.ask(2) == [[4.0, [1], "torch.float32"]]


def test_requests_that_fail_anyway_do_not_fail_the_start(nursery: Any, bundle: WriteBundle) -> None:
    folder = record(record(bundle(NUMBERS), {"no": "number"}, 1.0), 5.0, status=400)
    worker = ready(nursery, folder, compile="eager", max_batch_size=2)
    assert worker.ask(2)[0][1] == [1, 2, 1]


def test_requests_that_do_not_go_together_are_warmed_alone(nursery: Any, bundle: WriteBundle) -> None:
    source = NUMBERS.replace("for each in outputs]", "for each in outputs.sum(1)]")
    worker = ready(nursery, record(bundle(source), [1.0], [1.0, 2.0]), compile="eager", max_batch_size=2)
    assert worker.ask([2.0])[0][:2] == [4.0, [1, 1, 2, 1]]


def test_a_handler_that_calls_no_module_is_told_so(nursery: Any, bundle: WriteBundle) -> None:
    source = NUMBERS.replace("self.model(batch)", "batch * self.model.scale")
    worker = ready(nursery, record(bundle(source), 1.0), compile="eager")
    assert "nothing was compiled, as the handler calls no module" in worker.log()


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("inducto", "did you mean inductor?"),
        ("zzzzzz", "there are: "),
        ("openxla", "pip install torch_xla"),
        ("tensorrt", "pip install torch-tensorrt"),
    ],
)
def test_a_backend_that_is_not_there_fails_the_start(
    nursery: Any, bundle: WriteBundle, backend: str, said: str
) -> None:
    event = nursery.start(bundle(NUMBERS), compile=backend).event()
    assert event["event"] == "failed"
    assert event["error"].startswith(f"TuningError: compile is {backend!r}, which")
    assert said in event["error"]


def test_a_handler_without_modules_cannot_be_tuned(nursery: Any, bundle: WriteBundle) -> None:
    event = nursery.start(bundle(), compile="eager", dtype="float16").event()
    assert "compile and dtype would change nothing: of torch modules Echo holds none" in event["error"]


BROKEN = (
    """
from torch._dynamo import register_backend

@register_backend
def broken(graph, inputs):
    raise RuntimeError("no such instruction")
"""
    + NUMBERS
)


def test_what_only_the_compiler_cannot_do_fails_the_start_at_the_users_line(nursery: Any, bundle: WriteBundle) -> None:
    worker = nursery.start(record(bundle(BROKEN), 1.0), compile="broken")
    worker.channel.settimeout(PATIENCE_S)
    event = worker.event()
    assert (
        "works as it is written, but not compiled by 'broken': turn compile off, or try 'aot_eager'" in event["error"]
    )
    assert "no such instruction" in event["error"]
    assert "return self.model(batch)" in event["traceback"]
    assert "torch/_dynamo" not in event["traceback"].partition("The above exception")[0]


WATCHED = (
    MODEL
    + """
class Watched(nbserve.Handler):
    def initialize(self, context):
        self.model = Model()
        self.count = context.metrics.counter("rows")
        self.count.inc(100)

    def inference(self, batch):
        breakpoint()
        self.count.inc(len(batch))
        return self.model(batch)
"""
)


def test_the_rehearsal_holds_at_no_breakpoint_and_counts_nowhere(
    nursery: Any, bundle: WriteBundle, agent_of: Any
) -> None:
    folder = record(bundle(WATCHED), 1.0)
    worker = ready(nursery, folder, compile="eager", max_batch_size=4, debug_socket=agent_of.path)
    assert worker.hear("metrics")["counters"]["rows"]["delta"] == 100
    worker.send(b"1.0")
    assert "breakpoint" in worker.hear("held")["reason"]
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    client.last_reply("c", "resumed")
    assert worker.answer() == (200, 2.0)


INDUCTOR = (
    MODEL.replace("        self.note(x)\n", "").replace("return x * self.scale", "return (x * self.scale).relu()")
    + """
class Inductor(nbserve.Handler):
    def initialize(self, context):
        self.model = Model()

    def postprocess(self, outputs):
        counts = torch._dynamo.utils.counters["inductor"]
        return [[each, counts["fxgraph_cache_hit"], counts["fxgraph_cache_miss"]] for each in outputs]
"""
)


@needs_compiler
def test_the_second_worker_finds_what_the_first_has_compiled(nursery: Any, bundle: WriteBundle, tmp_path: Path) -> None:
    folder, cache = record(bundle(INDUCTOR), 1.0, -1.0), tmp_path / "cache"
    spec = {"compile": "inductor", "max_batch_size": 4, "compile_cache": str(cache), "inference_mode": True}
    first = ready(nursery, folder, **spec)
    made = {path for path in cache.rglob("*") if path.suffix == ".so"}
    assert made
    answer, hits, misses = first.ask(1.5)[0]
    assert (answer, hits, misses > 0) == (3.0, 0, True)
    second = ready(nursery, folder, **spec)
    assert second.ask(1.5) == [[3.0, misses, 0]]
    assert {path for path in cache.rglob("*") if path.suffix == ".so"} == made
    assert not any(psutil.Process(worker.pid).children() for worker in (first, second))


def test_inductor_without_a_compiler_says_what_to_install(
    own_nursery: Any, bundle: WriteBundle, tmp_path: Path
) -> None:
    nursery = own_nursery(CXX="no-such-compiler")
    worker = nursery.start(record(bundle(INDUCTOR), 1.0), compile="inductor", compile_cache=str(tmp_path / "cache"))
    worker.channel.settimeout(PATIENCE_S)
    assert "needs a C++ compiler here and finds none: install g++" in worker.event()["error"]


INNER = (
    MODEL
    + """
class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Model()

    def forward(self, x):
        return self.inner(x) + 1

class Both(nbserve.Handler):
    def initialize(self, context):
        self.model = Outer()
        self.part = self.model.inner

    def inference(self, batch):
        whole, part = self.model(batch), self.part(batch)
        assert whole.dtype == part.dtype == torch.float32
        return whole + part
"""
)


def test_a_module_and_its_part_can_both_be_called(nursery: Any, bundle: WriteBundle) -> None:
    folder = record(bundle(INNER), 1.0, 2.0)
    worker = ready(nursery, folder, compile="aot_eager", dtype="bfloat16", max_batch_size=4)
    assert worker.ask(1.0, 2.0) == [5.0, 9.0]


def test_a_debugger_steps_through_a_compiled_module_as_it_is_written(
    nursery: Any, bundle: WriteBundle, agent_of: Any
) -> None:
    folder = record(bundle(NUMBERS), 1.0)
    spec = {"compile": "aot_eager", "dtype": "bfloat16", "debug_socket": agent_of.path}
    worker = ready(nursery, folder, **spec)
    client = agent_of.client()
    client.say("stop", at="Model.forward")
    client.event("armed")
    worker.send(b"1.5")
    shown = client.prompt()
    assert "self.note(x)" in shown
    assert "return x * self.scale" in client.reply("n")
    client.last_reply("c")
    assert worker.answer()[1][0] == 3.0


def test_a_breakpoint_in_a_compiled_module_holds(nursery: Any, bundle: WriteBundle, agent_of: Any) -> None:
    folder = record(bundle(NUMBERS.replace("        self.note(x)\n", "        breakpoint()\n")), 1.0)
    worker = ready(nursery, folder, compile="aot_eager", dtype="bfloat16", debug_socket=agent_of.path)
    worker.send(b"1.5")
    worker.hear("held")
    client = agent_of.client()
    client.say("attach")
    client.prompt()
    assert client.reply("p x.dtype").strip() == "torch.bfloat16"
    client.last_reply("c")
    assert worker.answer()[1][0] == 3.0
