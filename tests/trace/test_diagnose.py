"""What the diagnosis says of timelines with one fault each, and of such without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbserve.config import EndpointConfig
from nbserve.trace.diagnose import EXPLAINS, RULES, findings, ordered, unexplained
from nbserve.trace.model import Finding, StackNode
from nbserve.trace.rules.measures import measure
from tests.trace.built import Built, Op

MATMUL = Op("aten::addmm", 1800, detail="float32[1024], float32[8,1024], float32[1024,1024], 1, 1")
TINY = tuple(Op("aten::mul", 3, after_us=4, detail="float32[64], float32[64]") for _ in range(500))
GRAD = {"grad": {"batches_with_grad": 10, "batches": 10}}
HANDLER = {"handler": {"name": "Net", "file": "cell net", "line": 3}}


def named(built: Built, **options: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings(built.timeline(), **options)}


def only(built: Built, name: str) -> Finding:
    found = findings(built.timeline())
    assert [finding.name for finding in found] == [name]
    return found[0]


def clean(**changes: Any) -> Built:
    stages = {"preprocess": 0.1, "inference": 2.0, "postprocess": 0.05, "encode": 0.05}
    return Built(**{"stages": stages, "ops": (MATMUL,), **changes})


def test_a_clean_model_is_bound_by_its_matrices() -> None:
    finding = only(clean(), "nothing-to-fix")
    assert finding.expected_gain == 1.0
    assert "matmul, 90% of inference (2.0 ms)" in finding.figure


def test_the_peak_is_asked_for_only_when_it_is_told() -> None:
    asked: list[int] = []

    def peak(threads: int) -> float:
        asked.append(threads)
        return 100.0

    [finding] = findings(clean(facts={"num_threads": 2}).timeline(), peak_gflops=peak)
    # 2 * 8 * 1024 * 1024 operations in 1.8 ms.
    assert "matmul at 9% of this CPU's peak (9 of 100 GFLOP/s)" in finding.figure
    findings(Built(stages={"batch_wait": 40.0, "inference": 1.0}).timeline(), peak_gflops=peak)
    assert asked == [2]


@pytest.mark.parametrize("peak", [None, lambda threads: None])
def test_without_a_peak_the_share_is_told(peak: Any) -> None:
    [finding] = findings(clean().timeline(), peak_gflops=peak)
    assert "peak" not in finding.figure


def test_without_batches_it_says_how_to_get_some() -> None:
    finding = only(Built(batches=0), "no-batches")
    assert finding.value == 0
    assert "--load" in finding.fix


def test_a_cold_first_batch_alone_tells_nothing_of_others() -> None:
    assert only(clean(batches=1, first_ms=900.0), "no-batches")


@pytest.mark.parametrize(("batches", "doubt"), [(1, "only one batch"), (3, "only 3 batches"), (4, "")])
def test_little_data_is_admitted(batches: int, doubt: str) -> None:
    finding = only(clean(batches=batches), "nothing-to-fix")
    assert (doubt in finding.figure) if doubt else ("only" not in finding.figure)


def test_a_window_that_nobody_comes_in() -> None:
    finding = only(clean(stages={"batch_wait": 40.0, "inference": 2.0}, settings={"policy": "window"}), "batch-wait")
    assert finding.settings == {"policy": "adaptive"}
    assert finding.value == pytest.approx(40 / 42.22, rel=0.01)
    assert finding.expected_gain == pytest.approx(42.22 / 2.22, rel=0.01)


def test_a_window_that_fills_batches_costs_more_than_it_saves() -> None:
    built = clean(rows=8, stages={"batch_wait": 5.0, "inference": 2.0}, settings={"policy": "window"})
    assert named(built)["batch-wait"].why.endswith("it would have been answered sooner than they came.")


def test_the_adaptive_policy_may_wait_where_that_pays() -> None:
    assert "batch-wait" not in named(clean(rows=8, stages={"batch_wait": 1.0, "inference": 2.0}))


def test_a_queue_of_single_requests_wants_larger_batches() -> None:
    built = Built(stages={"queue": 50.0, "inference": 10.0}, settings={"max_batch_size": 1})
    finding = only(built, "small-batches")
    assert finding.settings == {"max_batch_size": 4}
    assert finding.expected_gain == pytest.approx(4, rel=0.05)


def test_a_queue_before_full_operators_wants_workers_where_cores_are_idle() -> None:
    built = clean(stages={"queue": 20.0, "inference": 2.0}, cores=8, facts={"num_threads": 1}, rows=4)
    finding = only(replace(built, settings={"threads_per_worker": 1}), "queue-bound")
    assert finding.settings == {"workers": 2}
    assert finding.expected_gain > 1.5


def test_a_queue_on_a_full_machine_promises_nothing() -> None:
    finding = only(clean(stages={"queue": 20.0, "inference": 2.0}, cores=1, rows=4), "queue-bound")
    assert (finding.settings, finding.expected_gain) == ({}, 1.0)


def test_a_worker_that_always_has_a_next_batch_raises_no_alarm() -> None:
    only(clean(stages={"queue": 2.2, "inference": 2.0}, cores=8, rows=16), "nothing-to-fix")


def test_more_workers_are_proposed_only_where_they_help() -> None:
    finding = only(clean(stages={"queue": 6.0, "inference": 2.0}, facts={"num_threads": 2}, rows=4), "queue-bound")
    assert finding.settings == ({"workers": 2} if finding.expected_gain >= 1.03 else {})


def test_the_cause_of_a_queue_comes_before_it() -> None:
    built = clean(stages={"queue": 60.0, "preprocess": 30.0, "inference": 2.0}, cores=8, rows=4)
    assert list(named(built)) == ["slow-preprocess", "queue-bound"]


def test_slow_preprocessing_names_the_line() -> None:
    loop = StackNode("Net.<lambda>", "cell net", 9, 95.0, 95.0)
    method = StackNode("Net.preprocess", "cell net", 7, 95.0, 0.0, (loop,))
    root = StackNode("all", "", 0, 100.0, 5.0, (method,))
    finding = only(clean(stages={"preprocess": 10.0, "inference": 2.0}, facts=HANDLER, stack=root), "slow-preprocess")
    assert "Net.preprocess, line 9 (100% of its time)" in finding.fix
    assert finding.expected_gain == pytest.approx(12.22 / 3.22, rel=0.01)


def test_preprocessing_row_by_row_is_told_from_slow_code() -> None:
    each = tuple(Op("aten::select", 4, after_us=15, stage="preprocess") for _ in range(400))
    built = clean(rows=8, stages={"preprocess": 10.0, "inference": 2.0}, ops=(*each, MATMUL))
    assert "50 operators for each request" in only(built, "slow-preprocess").why


def test_a_few_operators_after_slow_python_are_not_what_takes_the_time() -> None:
    few = tuple(Op("aten::to", 10, stage="preprocess") for _ in range(40))
    built = clean(rows=8, stages={"preprocess": 10.0, "inference": 2.0}, ops=(*few, MATMUL))
    assert "in Python" in only(built, "slow-preprocess").why


def test_no_line_of_nbserve_is_named_as_the_handlers() -> None:
    inner = StackNode("Handler.preprocess", "nbserve/handler.py", 39, 95.0, 95.0)
    root = StackNode("all", "", 0, 100.0, 5.0, (inner,))
    facts = HANDLER | {"overrides": ["inference"]}
    finding = only(clean(stages={"preprocess": 10.0, "inference": 2.0}, facts=facts, stack=root), "slow-preprocess")
    assert "line" not in finding.fix
    assert finding.fix.endswith("in a preprocess of your own: Net.preprocess is the default one.")


def test_slow_postprocessing_is_told_too() -> None:
    assert (
        "Net.postprocess"
        in only(clean(stages={"inference": 2.0, "postprocess": 3.0}, facts=HANDLER), "slow-postprocess").fix
    )


def test_reading_json_is_told_from_slow_code() -> None:
    bodies = {"bodies": {"count": 10, "bytes": 20_000_000, "json_bytes": 20_000_000}}
    finding = only(clean(stages={"preprocess": 7.0, "inference": 0.5}, ops=(), facts=bodies), "slow-preprocess")
    assert "2.0 MB of JSON" in finding.why
    assert "frombuffer" in finding.fix


def test_the_way_to_the_worker_counts_only_for_large_bodies() -> None:
    stages = {"ipc": 4.0, "inference": 2.0}
    large = {"bodies": {"count": 10, "bytes": 120_000_000, "json_bytes": 0}}
    small = {"bodies": {"count": 10, "bytes": 1_200, "json_bytes": 0}}
    assert "12.0 MB a request take 4.0 ms" in only(clean(stages=stages, facts=large), "ipc").figure
    assert only(clean(stages=stages, facts=small), "nothing-to-fix")
    assert only(clean(stages=stages), "nothing-to-fix")


def test_train_mode_comes_before_everything() -> None:
    modules = {"modules": [{"name": "net", "training": True, "training_layers": ["BatchNorm1d", "Dropout"]}]}
    built = clean(stages={"preprocess": 90.0, "inference": 2.0}, facts=modules | HANDLER)
    first, second = findings(built.timeline())
    assert (first.name, second.name) == ("train-mode", "slow-preprocess")
    assert "self.net is in train mode, with BatchNorm1d, Dropout active" in first.figure
    assert first.fix == "Call self.net.eval() in Net.initialize."


def test_dropout_as_a_function_is_seen_by_its_operators() -> None:
    built = clean(ops=(MATMUL, Op("aten::native_dropout", 20)))
    assert only(built, "train-mode").expected_gain > 1


def test_a_train_flag_that_no_layer_minds_is_no_fault() -> None:
    modules = {"modules": [{"name": "net", "training": True, "training_layers": []}]}
    assert only(clean(facts=modules), "nothing-to-fix")


def test_autograd_is_turned_off_by_a_setting() -> None:
    finding = only(clean(facts=GRAD), "autograd")
    assert finding.settings == {"inference_mode": True}
    assert finding.expected_gain > 1


def test_a_handler_that_turns_autograd_on_itself_has_it_in_the_code() -> None:
    finding = only(clean(facts=GRAD | HANDLER, settings={"inference_mode": True}), "autograd")
    assert finding.settings == {}
    assert "Net.inference" in finding.fix


@pytest.mark.parametrize(
    ("facts", "place"),
    [
        ({"stages": True, "handler": {"name": "Net", "methods": {"inference": ["cell", 9]}}}, "Net.inference (line 9)"),
        ({"stages": True, "handler": {"name": "Net", "methods": {}}}, "Net.inference."),
        ({"stages": False, "handler": {"name": "Net", "methods": {"handle": ["cell", 5]}}}, "Net.handle (line 5)"),
    ],
)
def test_without_samples_a_fix_names_the_method(facts: dict[str, Any], place: str) -> None:
    assert place in only(clean(facts=GRAD | facts, settings={"inference_mode": True}), "autograd").fix


def test_many_tiny_operators_are_fused() -> None:
    finding = only(Built(stages={"inference": 3.6}, ops=TINY), "launch-bound")
    assert finding.settings == {"compile": "inductor"}
    # 500 times 7 us, less what the profiler adds; compiled code leaves 30 % of that.
    spent_ms = 3.5 - 0.35
    assert finding.expected_gain == pytest.approx((3.47 + 0.22 - 0.1) / (3.47 - 0.7 * spent_ms), rel=0.1)


def test_compiled_operators_are_not_compiled_again() -> None:
    finding = only(Built(stages={"inference": 3.6}, ops=TINY, settings={"compile": "inductor"}), "launch-bound")
    assert finding.settings == {"max_batch_size": 128}


def test_few_tiny_operators_are_no_fault() -> None:
    assert only(Built(stages={"inference": 0.4}, ops=TINY[:50]), "nothing-to-fix")


def test_operators_on_a_gpu_that_waits_want_graphs() -> None:
    kernels = tuple(Op("elementwise_kernel", 2, after_us=5, category="kernel") for _ in range(500))
    found = named(Built(stages={"inference": 3.6}, ops=TINY, kernels=kernels))
    assert list(found) == ["launch-bound"]
    assert found["launch-bound"].settings == {"compile": "inductor", "compile_mode": "reduce-overhead"}


def test_a_gpu_that_waits_for_few_operators() -> None:
    kernels = (Op("sm90_xmma_gemm", 300, category="kernel"),)
    finding = only(Built(stages={"inference": 2.0}, ops=(Op("aten::mm", 20),), kernels=kernels), "gpu-idle")
    assert finding.value == pytest.approx(0.85)


def test_a_busy_gpu_is_bound_by_its_matrices() -> None:
    kernels = (Op("sm90_xmma_gemm", 1900, category="kernel"),)
    finding = only(Built(stages={"inference": 2.0}, ops=(Op("aten::mm", 20),), kernels=kernels), "nothing-to-fix")
    assert "bound by matmul" in finding.figure


def test_python_between_operators() -> None:
    finding = only(clean(stages={"inference": 12.0}), "slow-python")
    assert finding.value == pytest.approx(10.2 / 12.22, rel=0.01)


def test_threads_that_do_not_fit_the_cores() -> None:
    finding = only(clean(facts={"num_threads": 16}, settings={"threads_per_worker": 16}), "oversubscribed-threads")
    assert finding.settings == {"threads_per_worker": 2}
    assert finding.value == 8


def test_threads_that_the_handler_sets_are_removed_from_its_code() -> None:
    finding = only(clean(facts={"num_threads": 16} | HANDLER), "oversubscribed-threads")
    assert finding.settings == {}
    assert "Net.initialize" in finding.fix


def test_copies_count_when_they_are_long() -> None:
    copy = Op("aten::to", 900, inside=(Op("aten::_to_copy", 890, inside=(Op("aten::copy_", 880),)),))
    finding = only(clean(stages={"inference": 2.8}, ops=(copy, MATMUL)), "copies")
    assert finding.figure.startswith("copies and conversions (1 a batch) take 0.9 ms")
    assert finding.value == pytest.approx(0.9 / 3.02, rel=0.02)


def test_a_product_that_copies_its_bias_raises_no_alarm() -> None:
    whole = Op("aten::linear", 1800, inside=(Op("aten::addmm", 1790, inside=(Op("aten::copy_", 1500),)),))
    only(clean(ops=(whole,)), "nothing-to-fix")


def test_products_slower_than_one_core_wait_for_each_others_threads() -> None:
    built = clean(stages={"inference": 20.0}, ops=(replace(MATMUL, us=18_000),), facts={"num_threads": 2})
    finding = only(built, "waiting-threads")
    assert "0.93 GFLOP/s with 2 threads" in finding.figure
    assert finding.settings == {"threads_per_worker": 1}
    assert finding.expected_gain > 2
    only(replace(built, facts={"num_threads": 1}, cores=1), "nothing-to-fix")


def test_products_of_many_rows_are_expected_to_be_faster_than_memory() -> None:
    many = replace(MATMUL, us=8_000, detail="float32[1024], float32[16,1024], float32[1024,1024], 1, 1")
    few = replace(MATMUL, us=1_000, detail="float32[1024], float32[2,1024], float32[1024,1024], 1, 1")
    built = clean(stages={"inference": 9.0}, facts={"num_threads": 2})
    # Both do 4.2 GFLOP/s.
    only(replace(built, ops=(many,)), "waiting-threads")
    only(replace(built, ops=(few,) * 8), "nothing-to-fix")


def test_code_without_torch_is_not_said_to_need_nothing() -> None:
    finding = only(clean(stages={"inference": 20.0}, ops=()), "nothing-to-fix")
    assert "handler's own code" in finding.figure
    assert "loops in Python or waits" in finding.fix


def test_the_operators_of_a_short_inference_do_not_bound_the_request() -> None:
    ops = (Op("aten::addmm", 80),)
    finding = only(clean(stages={"preprocess": 0.9, "inference": 0.1}, ops=ops), "nothing-to-fix")
    assert "matmul" not in finding.figure


def test_waiting_for_a_core_does_not_change_the_shares_of_operators() -> None:
    calls = [Op("aten::gelu", 1000 if i % 4 == 0 else 200) for i in range(8)]
    name, share = measure(clean(stages={"inference": 4.0}, ops=calls).timeline()).top_operator()
    # Without the waiting, the 3.2 ms of the operators are 1.6 ms, and those of inference 2.4 ms.
    assert (name, share) == ("aten::gelu", pytest.approx(1.6 / 2.4))


def test_waiting_for_a_core_is_no_python_between_operators() -> None:
    calls = [Op("aten::gelu", 8000 if i % 4 == 0 else 200) for i in range(8)]
    built = clean(stages={"inference": 22.0}, ops=calls)
    assert measure(built.timeline()).pause_ms() == pytest.approx(22.0 - 17.2, abs=0.01)
    assert "slow-python" not in named(built)


def test_items_explain_the_operators_that_they_are() -> None:
    items = tuple(
        Op("aten::item", 2, after_us=2, inside=(Op("aten::_local_scalar_dense", 1),), stage="postprocess")
        for _ in range(1000)
    )
    finding = only(clean(stages={"inference": 2.0, "postprocess": 4.5}, ops=(MATMUL, *items)), "item-syncs")
    assert finding.figure.startswith("1000 calls of .item() a batch")
    assert ".tolist()" in finding.fix


@pytest.mark.parametrize(("has_bf16", "name"), [(True, "fp32-matmul"), (False, "nothing-to-fix")])
def test_bfloat16_is_proposed_where_the_processor_has_it(has_bf16: bool, name: str) -> None:
    finding = only(clean(facts={"has_bf16": has_bf16}), name)
    assert finding.settings == ({"dtype": "bfloat16"} if has_bf16 else {})


def test_a_cold_first_batch_is_told_and_left_out() -> None:
    finding = only(clean(first_ms=600.0, facts=HANDLER), "cold-start")
    assert finding.figure == "a worker's first batch took 600 ms, 273 times the 2.2 ms of others"
    assert finding.expected_gain == 1.0


def test_requests_without_work_are_bound_by_their_way() -> None:
    finding = only(Built(stages={"inference": 0.01}), "nothing-to-fix")
    assert "the rest is HTTP" in finding.figure


def test_a_handler_without_torch_is_bound_by_its_own_code() -> None:
    method = StackNode("Net.handle", "cell net", 7, 95.0, 95.0)
    root = StackNode("all", "", 0, 100.0, 5.0, (method,))
    finding = only(Built(stages={"inference": 20.0}, facts=HANDLER, stack=root), "nothing-to-fix")
    assert "most of it in line 7 of handle" in finding.figure


def test_a_worker_that_left_no_trace_is_not_judged_by_it() -> None:
    finding = only(Built(stages={"inference": 20.0}, trace=None), "nothing-to-fix")
    assert finding.figure.endswith("its operators were not recorded")


def test_one_slow_request_of_ten_is_not_typical() -> None:
    timeline = clean().timeline()
    timeline.spans[3]["preprocess_ms"] = 500.0
    assert [finding.name for finding in findings(timeline)] == ["nothing-to-fix"]


def test_what_is_explained_is_not_told_twice() -> None:
    found = [_finding("launch-bound", 2.0), _finding("gpu-idle", 3.0), _finding("item-syncs", 1.5)]
    assert [finding.name for finding in unexplained(found)] == ["item-syncs"]


def test_no_finding_explains_itself_away() -> None:
    assert all(name not in explained for name, explained in EXPLAINS.items())


def test_equal_gains_keep_their_order() -> None:
    found = [_finding(name, 1.5) for name in ("copies", "slow-python", "ipc")]
    assert ordered(found) == found


def _finding(name: str, gain: float) -> Finding:
    return Finding(name, "figure", 1.0, 1.0, "why", "fix", gain)


@given(
    stages=st.fixed_dictionaries(
        {stage: st.floats(0, 100) for stage in ("queue", "batch_wait", "ipc", "preprocess", "inference", "postprocess")}
    ),
    rows=st.integers(1, 4),
    batches=st.integers(0, 5),
    ops=st.lists(
        st.builds(
            Op,
            st.sampled_from(["aten::addmm", "aten::copy_", "aten::item", "aten::mul"]),
            st.floats(0, 5000),
            after_us=st.floats(0, 500),
        ),
        max_size=6,
    ),
    threads=st.integers(1, 8),
    policy=st.sampled_from(["window", "adaptive"]),
)
def test_whatever_was_recorded_the_findings_are_whole(
    stages: dict[str, float], rows: int, batches: int, ops: list[Op], threads: int, policy: str
) -> None:
    built = Built(
        batches, rows, stages, ops, facts={"num_threads": threads, "has_bf16": True}, settings={"policy": policy}
    )
    found = findings(built.timeline(), peak_gflops=50.0)
    assert found
    assert len({finding.name for finding in found}) == len(found)
    for finding in found:
        assert all((finding.figure, finding.why, finding.fix))
        assert finding.why.endswith(".")
        assert finding.expected_gain >= 1.0
        assert finding.value >= finding.threshold or finding.name == "no-batches"
        EndpointConfig().changed(finding.settings)


def test_every_rule_says_how_it_estimates_its_gain() -> None:
    assert all((rule.__doc__ or "").startswith("Gain: ") for rule in RULES)
