"""The notebooks run from top to bottom in a real kernel, and in papermill, without an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbclient import NotebookClient

pytestmark = [pytest.mark.notebook, pytest.mark.process]

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def executed(name: str, folder: Path) -> Any:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=240, allow_errors=False, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def printed(notebook: Any, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", [])
    )


def test_the_quickstart_answers_well_and_loses_nothing(tmp_path: Path) -> None:
    notebook = executed("quickstart.ipynb", tmp_path)
    summary = printed(notebook, "summary")
    accuracy = float(summary.split("accuracy")[1].split("%")[0])
    assert accuracy > 95
    assert " 0 lost" in summary
    assert "'digit'" in printed(notebook, "predict")
    assert "max_batch_size = 32" in printed(notebook, "config")
    assert "400" in printed(notebook, "mistake")


def test_the_sentence_encoder_finds_what_is_meant_and_batches(tmp_path: Path) -> None:
    notebook = executed("embeddings.ipynb", tmp_path)
    alone, together = (line for line in printed(notebook, "ask").splitlines() if "client" in line)
    assert float(alone.split("mean batch")[1]) == 1.0
    assert float(together.split("mean batch")[1]) > 4
    assert "384 numbers" in printed(notebook, "one")
    assert "exception" in printed(notebook, "search")


def test_three_bugs_are_found_with_the_debugger_and_mended(tmp_path: Path) -> None:
    notebook = executed("debugging.ipynb", tmp_path)
    assert "(Pdb) p image.shape\n(8, 8, 3)\n" in printed(notebook, "shape-look")
    assert 'the answer: 200 {"digit":' in printed(notebook, "shape-try")
    assert "shape bug: gone" in printed(notebook, "shape-proof")
    assert "[nan, nan," in printed(notebook, "nan-hunt")
    assert "0.0" in printed(notebook, "nan-step").partition("(Pdb) p image.std()\n")[2].partition("\n")[0]
    assert "NaN bug: gone" in printed(notebook, "nan-proof")
    assert printed(notebook, "hang-look").startswith("main thread")
    assert "image = np.roll(image, -1, axis=0)\n" in printed(notebook, "hang-look")
    assert "500" in printed(notebook, "hang-client")
    assert "hang: gone" in printed(notebook, "hang-proof")


@pytest.mark.alone
def test_a_slow_endpoint_becomes_fast_in_five_findings(tmp_path: Path) -> None:
    notebook = executed("profiling.ipynb", tmp_path)
    assert "  1. train-mode: " in printed(notebook, "wrong")
    assert "cosine 1.0000" not in printed(notebook, "wrong-proof")
    assert "cosine 1.0000" in printed(notebook, "wrong-fixed")
    assert "  1. batch-wait: " in printed(notebook, "wait")
    assert "policy=adaptive: faster by" in printed(notebook, "wait-ab")
    assert "applied: embed runs with policy=adaptive" in printed(notebook, "wait-ab")
    assert "  1. slow-preprocess: " in printed(notebook, "prepare")
    assert re.search("  1. (item-syncs|slow-postprocess): ", printed(notebook, "items"))
    assert "autograd: " in printed(notebook, "grad")
    assert "answers are the same" in printed(notebook, "grad-ab")
    assert "all together" in printed(notebook, "summary")
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("<iframe" in data.get("text/html", "") for data in shown) == 5
    pictures = [data["text/plain"] for data in shown if "image/png" in data]
    assert sum("picture of the profile" in words for words in pictures) == 5
    # Of what was served, one below each card.
    served = sum("<code" in data.get("text/html", "") for data in shown)
    assert sum("picture of the panel" in words for words in pictures) == served == len(pictures) - 5


@pytest.mark.alone
def test_an_endpoint_is_tuned_by_eye_and_by_search(tmp_path: Path) -> None:
    notebook = executed("tuning.ipynb", tmp_path)
    by_hand, by_eye, by_search = (
        float(rate) for rate in re.findall(r"(\d+) answers/s   p99", printed(notebook, "summary"))
    )
    assert by_hand < by_eye
    assert by_hand < by_search
    assert "max_batch_size = 32" in printed(notebook, "linked")
    assert "  before " in printed(notebook, "tune")
    assert printed(notebook, "apply").startswith("%%serve embed")
    # The cell's line asked for 2 at most.
    assert "'max_batch_size': 2" not in printed(notebook, "bundle")
    [cell] = [cell for cell in notebook.cells if cell.id == "tune"]
    assert any("image/png" in output.get("data", {}) for output in cell.outputs)


def test_notebooks_are_committed_without_outputs() -> None:
    for path in NOTEBOOKS.glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path.name


def test_papermill_runs_the_magics(tmp_path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell("%load_ext nbserve"),
        nbformat.v4.new_code_cell("%%serve echo\ndef echo(requests):\n    return requests\n"),
        nbformat.v4.new_code_cell("%serve predict echo [1, 2]"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "in.ipynb")
    done = papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    assert done.cells[-1].outputs[0].data["text/plain"] == "[1, 2]"


def test_what_is_shipped_answers_as_the_notebook_did(tmp_path: Path) -> None:
    notebook = executed("shipping.ipynb", tmp_path)
    assert "it answered 5 recorded requests as in the notebook" in printed(notebook, "export")
    assert "bundle/model/net.safetensors" in printed(notebook, "folder")
    assert "class Wine(nbserve.Handler)" in printed(notebook, "app")
    assert "USER ${UID}" in printed(notebook, "dockerfile")
    assert "all 5 answers are equal" in printed(notebook, "verify")
    assert "exit code 0" in printed(notebook, "drain")
    [refused] = [cell for cell in notebook.cells if cell.id == "lottery-export"]
    assert [output["ename"] for output in refused.outputs if output["output_type"] == "error"] == ["GoldenMismatch"]
    assert "written: False" in printed(notebook, "lottery-nothing")
    assert "proven      5 requests" in printed(notebook, "summary")
