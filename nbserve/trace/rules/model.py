"""Rules about the handler's model: its mode, its autograd graph, and what its operators spend time on. Pure."""

from __future__ import annotations

from typing import Any

from nbserve.trace.model import Finding
from nbserve.trace.rules import thresholds as limits
from nbserve.trace.rules.measures import Measures
from nbserve.trace.rules.operators import ITEMS, RANDOM
from nbserve.trace.rules.places import hottest, initialize_text, method_text, model_name


def train_mode(m: Measures) -> Finding | None:
    """Gain: what drawing the random numbers takes; the finding is about wrong answers, so it comes first anyway."""
    modules = [module for facts in m.facts for module in facts.get("modules", []) if module.get("training_layers")]
    random = m.ops.of(RANDOM, "inference")
    if not modules and not random.any():
        return None
    layers = sorted({layer for module in modules for layer in module["training_layers"]})
    active = ", ".join(layers) if layers else f"{int(random.sum())} calls of dropout"
    name = f"self.{modules[0]['name']}" if modules else model_name(m)
    return Finding(
        name="train-mode",
        figure=f"{name} is in train mode, with {active} active",
        value=float(len(layers) or random.sum()),
        threshold=1.0,
        why="Answers are random (dropout) or depend on who else is in the batch (batch norm).",
        fix=f"Call {name}.eval() in {initialize_text(m)}.",
        expected_gain=m.gain(m.spent_ms(random)),
    )


def autograd(m: Measures) -> Finding | None:
    """Gain: about 3 us for each operator that torch notes in the graph, and frees again.

    It is never told as nothing: 1.01 keeps the finding before those that gain nothing.
    """
    with_grad, batches = _grad(m)
    share = with_grad / batches if batches else 0.0
    if share < limits.GRAD_SHARE:
        return None
    noted = m.ops.per_batch(m.ops.is_outer & m.ops.within("inference"))
    saved_ns = limits.AUTOGRAD_US_PER_OP * 1e3 * noted
    is_set = bool(m.settings.get("inference_mode"))
    return Finding(
        name="autograd",
        figure=f"{with_grad} of {batches} batches built an autograd graph, of {noted:.0f} operators each",
        value=share,
        threshold=limits.GRAD_SHARE,
        why="Nothing is trained here: torch notes each operator and keeps what backward() would need, for nobody.",
        fix=f"Do not turn autograd on in {method_text(m, 'inference')}."
        if is_set
        else "Run the stages under torch.inference_mode(): inference_mode=true.",
        expected_gain=max(m.gain(min(saved_ns / 1e6, m.stage_ms["inference"])), 1.01),
        settings={} if is_set else {"inference_mode": True},
    )


def launch_bound(m: Measures) -> Finding | None:
    """Gain: compiled code leaves about 30 % of the time spent on getting operators going (20 % with CUDA graphs).

    That time is the gaps between operators and those that are over at once, less what the profiler added to them.
    """
    count, mean_us = m.ops.per_batch(m.ops.within("inference")), m.ops.mean_self_us()
    spent_ms = m.launch_ms()
    share = m.share(spent_ms)
    # A GPU that always has something to do does not mind how long the processor takes.
    is_tiny = mean_us < limits.TINY_OP_US if m.gpu is None else m.gpu.idle_share >= limits.GPU_IDLE_SHARE
    if count < limits.LAUNCH_OPS or not is_tiny or share < limits.LAUNCH_SHARE or spent_ms < limits.LEAST_LAUNCH_MS:
        return None
    fix, settings, left = _compiled(m)
    return Finding(
        name="launch-bound",
        figure=f"an inference runs {count:.0f} operators of {mean_us:.1f} us; getting them going takes "
        f"{_part(m, share)}",
        value=share,
        threshold=limits.LAUNCH_SHARE,
        why="The operators are too small: Python and torch need longer to start each one than it needs to compute.",
        fix=fix,
        expected_gain=m.gain((1 - left) * spent_ms),
        settings=settings,
    )


def _compiled(m: Measures) -> tuple[str, dict[str, Any], float]:
    """The fix for many tiny operators, its settings, and the part of their cost that it leaves."""
    if m.gpu is not None and m.settings.get("compile_mode") != "reduce-overhead":
        text = "Compile into CUDA graphs: compile=inductor compile_mode=reduce-overhead."
        return text, {"compile": "inductor", "compile_mode": "reduce-overhead"}, limits.GRAPHED_PART
    if not m.settings.get("compile") and not m.is_compiled:
        return "Fuse them: compile=inductor.", {"compile": "inductor"}, limits.COMPILED_PART
    larger = max(1, int(m.settings.get("max_batch_size", 1))) * limits.LARGER_BATCH
    text = f"It is compiled already: let more requests share each operator, max_batch_size={larger}."
    return text, {"max_batch_size": larger}, 1 / limits.LARGER_BATCH


def slow_python(m: Measures) -> Finding | None:
    """Gain: vectorised code needs about a tenth of it. Pauses too long for the way between operators count."""
    pause_ms = m.pause_ms()
    share = m.share(pause_ms)
    if (
        m.gpu is not None
        or not m.ops.within("inference").any()
        or share < limits.PYTHON_SHARE
        or pause_ms < limits.LEAST_PYTHON_MS
    ):
        return None
    place = hottest(m, "inference", "handle")
    return Finding(
        name="slow-python",
        figure=f"inference is outside of operators for {pause_ms:.1f} ms, {_part(m, share)}",
        value=share,
        threshold=limits.PYTHON_SHARE,
        why="The model waits for Python code between its operators.",
        fix=f"Vectorise or remove what the handler does there: {place.text()}."
        if place
        else "Vectorise or remove the handler's Python code between operators; its stacks show where it is.",
        expected_gain=m.gain((1 - limits.VECTORISED_PART) * pause_ms),
    )


def copies(m: Measures) -> Finding | None:
    """Gain: all of the copying is gone."""
    spent_ms = m.gpu.copy_ns / m.gpu.batches / 1e6 if m.gpu is not None else m.copies_ms()
    share = m.share(spent_ms)
    if share < limits.COPY_SHARE or spent_ms < limits.LEAST_COPY_MS:
        return None
    return Finding(
        name="copies",
        figure=f"copies and conversions ({m.ops.per_batch(m.copies):.0f} a batch) take {spent_ms:.1f} ms, "
        f"{_part(m, share)}",
        value=share,
        threshold=limits.COPY_SHARE,
        why="Tensors are moved or converted to another type or layout for each batch, which computes nothing.",
        fix=f"Convert weights once in {initialize_text(m)}; make inputs in the type, layout and place of the model.",
        expected_gain=m.gain(spent_ms),
    )


def item_syncs(m: Measures) -> Finding | None:
    """Gain: all of the loop, from taking the tensor apart to the last `.item()`."""
    chosen = m.ops.of(ITEMS)
    calls, stage = m.ops.per_batch(chosen), m.ops.main_stage(chosen)
    spent_ms = m.items_ms(stage)
    share = m.share(spent_ms)
    if share < limits.ITEM_SHARE or spent_ms < limits.LEAST_ITEM_MS:
        return None
    return Finding(
        name="item-syncs",
        figure=f"{calls:.0f} calls of .item() a batch take {spent_ms:.1f} ms, {_part(m, share)}",
        value=share,
        threshold=limits.ITEM_SHARE,
        why="Each takes one number out of a tensor"
        + (
            " and waits for all that the GPU has to do." if m.gpu is not None else ", at the price of a whole operator."
        ),
        fix=f"Take all numbers at once with .tolist(), in {method_text(m, stage)}.",
        expected_gain=m.gain(spent_ms),
    )


def fp32_matmul(m: Measures) -> Finding | None:
    """Gain: products of matrices take half the time in bfloat16."""
    if m.settings.get("dtype") or not any(facts.get("has_bf16") for facts in m.facts):
        return None
    share = m.matmul_share()
    if share < limits.MATMUL_SHARE or m.matmul_type() != "float32":
        return None
    return Finding(
        name="fp32-matmul",
        figure=f"products of float32 matrices take {share:.0%} of inference",
        value=share,
        threshold=limits.MATMUL_SHARE,
        why="This processor multiplies bfloat16 at least twice as fast, and models rarely need more digits.",
        fix="Compute in bfloat16: dtype=bfloat16.",
        expected_gain=m.gain((1 - limits.BF16_PART) * share * m.stage_ms["inference"]),
        settings={"dtype": "bfloat16"},
    )


def _grad(m: Measures) -> tuple[int, int]:
    grads = [facts["grad"] for facts in m.facts if facts.get("grad")]
    return sum(grad["batches_with_grad"] for grad in grads), sum(grad["batches"] for grad in grads)


def _part(m: Measures, share: float) -> str:
    return f"{share:.0%} of a request's {m.total_ms:.1f} ms"
