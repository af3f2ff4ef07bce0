"""The handler class in the worker: the cell's lines, mapped weights, local files, what the bundle records."""

from __future__ import annotations

import inspect
import json
import linecache
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nbserve.bundle.load import load_handler

pytestmark = pytest.mark.process

CELL = """%%serve digits --workers 2
import torch

@torch.no_grad()
def helper(x):
    raise ValueError(x)

class Served(nbserve.Handler):
    # the model of cell 2
    def initialize(self, context):
        self.model = net

    def handle(self, requests, context):
        return helper(
            requests
        )
"""
Clean = Callable[[Path, list[Any]], dict[str, Any]]


@pytest.fixture
def _leave_no_app(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(".")
    yield
    sys.modules.pop("app", None)


@pytest.mark.usefixtures("_leave_no_app")
def test_tracebacks_and_sources_are_those_of_the_cell(notebook: Any) -> None:
    notebook.run(
        "import torch, nbserve\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x): return x\n"
        "net = Net()"
    )
    notebook.run("# " + CELL)
    bundle = notebook.serve(cell=(CELL, "quickstart.ipynb, cell 7"))
    served = load_handler(bundle.path)
    handler = served()
    handler.initialize(None)
    with pytest.raises(ValueError, match="boom") as caught:
        handler.handle("boom", None)
    shown = traceback.format_tb(caught.value.__traceback__)
    assert 'File "quickstart.ipynb, cell 7", line 14, in handle\n    return helper(' in shown[1]
    assert 'File "quickstart.ipynb, cell 7", line 6, in helper\n    raise ValueError(x)\n' in shown[-1]
    lines, first = inspect.getsourcelines(served)
    assert (first, lines[0], lines[-1]) == (8, "class Served(nbserve.Handler):\n", "        )\n")
    lines, first = inspect.getsourcelines(served.handle)
    assert (first, len(lines)) == (13, 4)
    assert inspect.getsource(type(handler.model)).startswith("class Net(nn.Module):\n    def forward")
    linecache.checkcache()
    assert inspect.getsourcefile(served.handle) == "quickstart.ipynb, cell 7"


@pytest.mark.usefixtures("_leave_no_app")
def test_a_handler_that_fails_to_load_leaves_no_module(notebook: Any) -> None:
    notebook.run(
        "import nbserve\ndef deco(c):\n    import os\n    if 'FAIL' in os.environ: raise OSError\n    return c",
        "@deco\nclass Served(nbserve.Handler):\n    pass",
    )
    bundle = notebook.serve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIL", "1")
        with pytest.raises(OSError, match=r"^$"):
            load_handler(bundle.path)
    assert "app" not in sys.modules
    assert load_handler(bundle.path).__name__ == "Served"


@pytest.mark.usefixtures("_leave_no_app")
def test_weights_are_mapped_and_writable(notebook: Any) -> None:
    notebook.run(
        "import torch, nbserve\n"
        "from torch import nn\n"
        "net = nn.Linear(64, 64)\n"
        "class Served(nbserve.Handler):\n"
        "    model = net"
    )
    served: Any = load_handler(notebook.serve().path)
    weight = served.model.weight
    assert weight.data_ptr() % 64 == 0
    assert torch.equal(weight, notebook.namespace["net"].weight)
    before = (notebook.serve().path / "model" / "net.safetensors").read_bytes()
    with torch.no_grad():
        weight += 1
    assert (notebook.serve().path / "model" / "net.safetensors").read_bytes() == before


def test_an_nn_module_is_served_as_it_is(notebook: Any, clean: Clean) -> None:
    notebook.run(
        "import torch\n"
        "from torch import nn\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))"
    )
    bundle = notebook.serve("net", name="my-net")
    assert bundle.handler == "app:MyNetHandler"
    wanted = notebook.namespace["net"].eval()(torch.ones(1, 2)).tolist()
    assert clean(bundle.path, [[1.0, 1.0]])["answer"] == wanted


def test_a_module_without_a_name_is_served(notebook: Any, clean: Clean) -> None:
    from nbserve.capture.capture import capture

    net = nn.Linear(2, 1)
    bundle = capture(net, name="plain", namespace={"__name__": "__main__"}, store=notebook.store)
    assert clean(bundle.path, [[1.0, 1.0]])["answer"] == net(torch.ones(1, 2)).tolist()


def test_a_function_takes_the_batch(notebook: Any, clean: Clean) -> None:
    notebook.run("K = 3\ndef grow(requests):\n    return [K * r for r in requests]")
    assert clean(notebook.serve("grow").path, [1, 2])["answer"] == [3, 6]


def test_a_local_module_travels(notebook: Any, clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local_deep_x.py").write_text("def plus(x): return x + 1\n")
    (tmp_path / "local_pack_x").mkdir()
    (tmp_path / "local_pack_x" / "__init__.py").write_text("from .part import twice\n")
    (tmp_path / "local_pack_x" / "part.py").write_text(
        "from local_deep_x import plus\ndef twice(x): return plus(2 * x)\nclass Thing:\n    v = 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    notebook.run(
        "import nbserve, local_pack_x as lp\nfrom local_pack_x.part import Thing\nthing = Thing()\n"
        "class Served(nbserve.Handler):\n"
        "    def handle(self, requests, context):\n"
        "        return [lp.twice(r) + thing.v for r in requests]"
    )
    bundle = notebook.serve()
    assert sorted(p.relative_to(bundle.path).as_posix() for p in (bundle.path / "lib").rglob("*.py")) == [
        "lib/local_deep_x.py",
        "lib/local_pack_x/__init__.py",
        "lib/local_pack_x/part.py",
    ]
    assert bundle.imports == []
    assert clean(bundle.path, [1, 2])["answer"] == [8, 10]
    for name in [name for name in sys.modules if name.startswith("local_")]:
        del sys.modules[name]


def test_files_named_by_relative_paths_travel(
    notebook: Any, clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    (work / "data" / "sub").mkdir(parents=True)
    (work / "labels.txt").write_text("cat dog")
    (work / "data" / "sub" / "a.json").write_text("[1]")
    monkeypatch.chdir(work)
    notebook.run(
        "import nbserve, json\nNAME = 'labels.txt'\nclass Served(nbserve.Handler):\n"
        "    def handle(self, requests, context):\n"
        "        return [[open(NAME).read(), json.load(open('data/sub/a.json'))]]".replace("open(", "nbserve_open(")
        + (
            "\n"
            "def nbserve_open(path):\n"
            "    import io\n"
            "    from pathlib import Path\n"
            "    return io.StringIO(Path(path).read_text())"
        )
    )
    bundle = notebook.serve()
    monkeypatch.chdir("/")
    assert clean(bundle.path, [0])["answer"] == [["cat dog", [1]]]


def test_a_file_outside_the_folder_is_refused_by_name(
    notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbserve.errors import CaptureError

    (tmp_path / "work").mkdir()
    (tmp_path / "out.txt").write_text("x")
    monkeypatch.chdir(tmp_path / "work")
    notebook.run(
        "import nbserve\n"
        "class Served(nbserve.Handler):\n"
        "    def handle(self, requests, context):\n"
        "        return open('../out.txt')"
    )
    with pytest.raises(CaptureError, match=r"`\.\./out\.txt`: it is a file outside.*\n  test.ipynb, cell 1, line 4:"):
        notebook.serve()


def test_a_compiled_module_is_compiled_again(notebook: Any, clean: Clean) -> None:
    notebook.run(
        "import torch, nbserve\nfrom torch import nn\ntorch.manual_seed(0)\nnet = nn.Linear(3, 2)\n"
        "fast = torch.compile(net, backend='eager', dynamic=True, fullgraph=True)\n"
        "class Served(nbserve.Handler):\n    def handle(self, requests, context):\n"
        "        with torch.no_grad():\n            out = fast(torch.tensor(requests))\n"
        "        return [type(fast).__name__, fast._orig_mod is net, fast.dynamo_ctx._dynamic, out.tolist()]"
    )
    rows = [[1.0, 2.0, 3.0]]
    found = clean(notebook.serve().path, rows)
    assert found.get("answer") == notebook.answer(rows), found


def test_app_py_can_be_imported_as_it_is(notebook: Any) -> None:
    notebook.run("import nbserve, torch\nx = torch.ones(2)\nclass Served(nbserve.Handler):\n    v = x")
    path = notebook.serve().path
    code = "import app; print(app.Served.v.tolist())"
    done = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1.0, 1.0]


SCRIPT = """
import sys
from pathlib import Path
import nbserve
from nbserve.capture.capture import capture
OFFSET = 3
class Served(nbserve.Handler):
    def handle(self, requests, context):
        return [request + OFFSET for request in requests]
if __name__ == "__main__":
    print(capture(Served, name="script", namespace=globals(), store=Path(sys.argv[1])).path)
"""


def test_a_class_of_a_script_is_captured(tmp_path: Path, clean: Clean) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "store")]
    path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    assert "# %% train.py, line 7\nclass Served" in (path / "app.py").read_text()
    assert clean(path, [1])["answer"] == [4]


def test_a_class_of_a_local_module_is_imported(
    notebook: Any, clean: Clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_handlers_x.py").write_text(
        "import nbserve\nclass Served(nbserve.Handler):\n    def handle(self, requests, context): return [7]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    notebook.run("from my_handlers_x import Served")
    assert clean(notebook.serve().path, [1])["answer"] == [7]
    del sys.modules["my_handlers_x"]


def test_a_variable_may_be_named_artifact(notebook: Any, clean: Clean) -> None:
    notebook.run(
        "import torch, nbserve\nartifact = torch.ones(2)\nclass Served(nbserve.Handler):\n"
        "    def handle(self, requests, context): return [artifact]"
    )
    assert clean(notebook.serve().path, [1])["answer"] == [[1.0, 1.0]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_of_a_gpu_come_back_to_the_workers_gpu(notebook: Any, clean: Clean) -> None:
    notebook.run(
        "import torch, nbserve\nnet = torch.nn.LSTM(2, 2).cuda()\nclass Served(nbserve.Handler):\n"
        "    def handle(self, requests, context):\n"
        "        out, _ = net(torch.ones(1, 1, 2, device='cuda'))\n"
        "        return [[str(next(net.parameters()).device), out.tolist()]]"
    )
    assert clean(notebook.serve().path, [1])["answer"] == notebook.answer([1])


def test_large_arrays_are_mapped(notebook: Any, clean: Clean) -> None:
    notebook.run(
        "import numpy as np, nbserve\ntable = np.arange(100_000.0)\nclass Served(nbserve.Handler):\n"
        "    def handle(self, requests, context):\n"
        "        with open('/proc/self/maps') as maps:\n"
        "            shared = 'table.npy' in maps.read()\n"
        "        table[0] = 5.0\n"
        "        return [[type(table).__name__, shared, table[0], table.sum()]]"
    )
    path = notebook.serve().path
    assert clean(path, [1])["answer"] == [["ndarray", True, 5.0, 4999950005.0]]
    assert clean(path, [1])["answer"] == [["ndarray", True, 5.0, 4999950005.0]]


def test_capture_and_load_are_quick(notebook: Any) -> None:
    notebook.run(
        "import torch, nbserve\nfrom torch import nn\nnet = nn.Sequential(nn.Linear(8, 8), nn.ReLU())\n"
        "class Served(nbserve.Handler):\n    model = net"
    )
    notebook.serve()
    began = time.perf_counter()
    notebook.serve()
    assert time.perf_counter() - began < 0.15
