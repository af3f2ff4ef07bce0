"""ONNX Runtime as a backend of torch.compile, for releases of torch that have none themselves. Runs in the worker."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn

# Where dynamo marks an input as a parameter or buffer of the module.
_STATIC = "_dynamo_static_input_type"
Source = Callable[[Sequence[torch.Tensor]], Any]


def register() -> None:
    """Make it known to torch.compile as `onnxrt`."""
    torch._dynamo.register_backend(compiler_fn=cast(Any, onnxrt), name="onnxrt")
    # ONNX has no word for the one operator that this makes of a whole layer.
    torch.backends.mha.set_fastpath_enabled(False)


def onnxrt(graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., list[torch.Tensor]]:
    """Runs the graph in a session of ONNX Runtime: weights become constants, sizes that are open stay open."""
    frozen = Frozen(graph, inputs)
    # In a thread, as the export traces in its turn, and dynamo is tracing in this one.
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(session_of, frozen).result()
    names = [each.name for each in session.get_inputs()]

    def run(*arguments: Any) -> list[torch.Tensor]:
        arrays = [arguments[index].detach().contiguous().numpy() for index in frozen.taken]
        return [torch.as_tensor(each) for each in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


class Frozen(nn.Module):
    """A graph of dynamo as a function of the tensors that change from call to call, which are its inputs `taken`."""

    def __init__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> None:
        super().__init__()
        nodes = graph.graph.find_nodes(op="placeholder")
        fakes = {i: node.meta["example_value"] for i, node in enumerate(nodes) if _changes(node, inputs[i])}
        self.taken = list(fakes)
        self.examples = tuple(inputs[index] for index in self.taken)
        self.open_sizes = tuple(_open_sizes(fake) for fake in fakes.values())
        self._graph = graph
        self._sources = [self._source(index, value, fakes) for index, value in enumerate(inputs)]

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self._graph(*(source(tensors) for source in self._sources))

    def _source(self, index: int, value: Any, fakes: Mapping[int, Any]) -> Source:
        """Where an input of the graph comes from: a tensor of the call, a size of one, or a constant."""
        if index in fakes:
            position = self.taken.index(index)
            return lambda tensors: tensors[position]
        if isinstance(value, torch.SymInt):
            position, dim = _place_of(value, fakes.values())
            return lambda tensors: tensors[position].shape[dim]
        if isinstance(value, torch.Tensor):
            self.register_buffer(f"constant_{index}", value.detach())
            return lambda _: getattr(self, f"constant_{index}")
        return lambda _: value


def session_of(frozen: Frozen) -> Any:
    if any(not each.is_cpu or each.dtype is torch.bfloat16 for each in frozen.examples):
        raise RuntimeError("onnxrt takes tensors on the CPU, and no bfloat16: use device=cpu and dtype=float32")
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Else its threads keep the cores busy for a while after each batch.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder, "model.onnx")
        examples = tuple(each.clone() for each in frozen.examples)
        program = torch.onnx.export(
            frozen.eval(), examples, dynamic_shapes=(frozen.open_sizes,), dynamo=True, verbose=False
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        program.save(file, external_data=True)
        return onnxruntime.InferenceSession(file, options)


def _changes(node: fx.Node, value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not (node.meta.get("tensor_dict") or {}).get(_STATIC)


def _open_sizes(fake: Any) -> dict[int, Any]:
    return {dim: torch.export.Dim.DYNAMIC for dim, size in enumerate(fake.shape) if isinstance(size, torch.SymInt)}


def _place_of(size: torch.SymInt, fakes: Iterable[Any]) -> tuple[int, int]:
    for position, fake in enumerate(fakes):
        for dim, other in enumerate(fake.shape):
            if isinstance(other, torch.SymInt) and other.node.expr == size.node.expr:
                return position, dim
    raise RuntimeError(f"onnxrt cannot tell the size {size} from the shapes of the inputs")
