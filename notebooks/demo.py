"""Run the quickstart in a real kernel, tell each step on the terminal, and keep the notebook and its HTML."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
OUT = NOTEBOOK.parent.parent / "demo"
CELL_LIMIT_S = 300


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    OUT.mkdir(exist_ok=True)
    try:
        run(notebook)
    finally:
        keep(notebook)
    tell(f"\nWhat was served\n{summary(notebook)}\n")
    tell(f"executed notebook: {OUT / NOTEBOOK.name}\nas a page:         {OUT / NOTEBOOK.stem}.html")


def run(notebook: Any) -> None:
    """Execute all cells in a new kernel, with a line for each."""
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    code_cells = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    tell(f"{NOTEBOOK.name}: {len(code_cells)} cells, in a kernel of their own")
    with client.setup_kernel():
        for number, index in enumerate(code_cells, start=1):
            cell, began = notebook.cells[index], time.monotonic()
            tell(f"[{number:>2}/{len(code_cells)}] {first_line(cell)} ", end="")
            client.execute_cell(cell, index)
            tell(f"({time.monotonic() - began:.1f} s)")
            for line in printed(cell).splitlines():
                tell(f"        {line}")


def keep(notebook: Any) -> None:
    nbformat.write(notebook, OUT / NOTEBOOK.name)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (OUT / f"{NOTEBOOK.stem}.html").write_text(page)


def summary(notebook: Any) -> str:
    """What the cell tagged `summary` printed."""
    tagged = [cell for cell in notebook.cells if "summary" in cell.metadata.get("tags", [])]
    return "".join(printed(cell) for cell in tagged)


def first_line(cell: Any) -> str:
    return str(cell.source.partition("\n")[0])


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
