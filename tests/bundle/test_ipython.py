"""Cells of a real IPython shell, with its history, its magics and its names of files, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

SHELL = """
import json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from nbserve.capture.capture import capture
from nbserve.errors import CaptureError
from nbserve.notebook import cell as served_cell

shell = InteractiveShell.instance()
shell.history_manager.enabled = False

def serve(line, body):
    ran = served_cell.run(shell, line, body)
    handler = served_cell.find_handler(ran, shell.user_ns)
    try:
        results.append(str(capture(handler, name=line, namespace=shell.user_ns, store=Path(sys.argv[1])).path))
    except CaptureError as error:
        results.append(str(error))

results = []
shell.register_magic_function(serve, "cell", "serve")
shell.user_ns["__session__"] = "/home/me/notes/quickstart.ipynb"
for text in json.load(sys.stdin):
    shell.run_cell(text, store_history=True, silent=False).raise_error()
print("RESULTS" + json.dumps(results))
"""

CELLS = [
    "%config InteractiveShell.colors = 'nocolor'\nimport torch, nbserve\nfrom torch import nn",
    (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.lin = nn.Linear(2, 2)\n"
        "    def forward(self, x):\n"
        "        return self.lin(x)"
    ),
    "%%time\nSCALE = 2.0\ndef scaled(x):\n    return [SCALE * v for v in x]",
    "torch.manual_seed(0)\nnet = Net()\nwith torch.no_grad():\n    net.lin.weight.fill_(1.0); net.lin.bias.fill_(0.5);",
    (
        "%%serve first\n"
        "files = !echo hello\n"
        "class First(nbserve.Handler):\n"
        "    def initialize(self, context):\n"
        "        self.model = net\n"
        "    def postprocess(self, outputs):\n"
        "        return [scaled(row) for row in outputs.tolist()]"
    ),
    "%%serve second\ndef second(requests):\n    return [Out for r in requests]",
    (
        "%%serve second\n"
        "class Second(nbserve.Handler):\n"
        "    def fail(self): raise ValueError('x')\n"
        "    def handle(self, requests, context):\n"
        "        try:\n"
        "            self.fail()\n"
        "        except ValueError as error:\n"
        "            code = error.__traceback__.tb_next.tb_frame.f_code\n"
        "            return [[code.co_filename, error.__traceback__.tb_next.tb_lineno]]"
    ),
]


def test_cells_of_ipython_are_captured(tmp_path: Path, clean: Callable[[Path, list[Any]], dict[str, Any]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHELL, str(tmp_path / "store")],
        input=json.dumps(CELLS),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    first, refused, second = json.loads(done.stdout.rpartition("RESULTS")[2])
    app = (Path(first) / "app.py").read_text()
    assert "# %% quickstart.ipynb, cell 2, line 1\nclass Net(nn.Module):" in app
    assert "# %% quickstart.ipynb, cell 3, line 3\ndef scaled(x):" in app
    assert "# %% quickstart.ipynb, cell 5, line 3\nclass First(nbserve.Handler):" in app
    assert "echo" not in app
    assert clean(Path(first), [[1.0, 2.0]])["answer"] == [[7.0, 7.0]]
    assert refused.startswith(
        "cannot capture `Out`: it belongs to the notebook itself.\n  quickstart.ipynb, cell 6, line 3:"
    )
    assert clean(Path(second), [0])["answer"] == [["quickstart.ipynb, cell 7", 3]]
