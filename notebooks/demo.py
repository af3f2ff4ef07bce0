"""Run the quickstart in a real kernel, tell each step on the terminal, and keep the notebook and its HTML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter

from nbserve.errors import ExportError
from nbserve.notebook.headless import Step, execute

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
OUT = NOTEBOOK.parent.parent / "demo"
CELL_LIMIT_S = 300


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    OUT.mkdir(exist_ok=True)
    try:
        run(notebook)
    except ExportError as error:
        sys.exit(f"\n{error}")
    finally:
        keep(notebook)
    tell(f"\nWhat was served\n{summary(notebook)}\n")
    tell(f"executed notebook: {OUT / NOTEBOOK.name}\nas a page:         {OUT / NOTEBOOK.stem}.html")


def run(notebook: Any) -> None:
    """Execute all cells in a new kernel, with a line for each."""
    tell(f"{NOTEBOOK.name}, in a kernel of its own")
    execute(notebook, NOTEBOOK, tell_step, cell_limit_s=CELL_LIMIT_S)


def tell_step(step: Step) -> None:
    """A line that is finished when the cell is, and what the cell printed."""
    if step.took_s is None:
        tell(f"{step} ", end="")
        return
    tell(f"({step.took_s:.1f} s)")
    for line in printed(step.cell).splitlines():
        tell(f"        {line}")


def keep(notebook: Any) -> None:
    nbformat.write(notebook, OUT / NOTEBOOK.name)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (OUT / f"{NOTEBOOK.stem}.html").write_text(page)


def summary(notebook: Any) -> str:
    """What the cell tagged `summary` printed."""
    tagged = [cell for cell in notebook.cells if "summary" in cell.metadata.get("tags", [])]
    return "".join(printed(cell) for cell in tagged)


def printed(cell: Any) -> str:
    """The text of a cell's outputs, without pictures' placeholders."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" not in data:
            texts.append(output.get("text") or data.get("text/plain", ""))
    return "\n".join(text.rstrip("\n") for text in texts if text)


def tell(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
