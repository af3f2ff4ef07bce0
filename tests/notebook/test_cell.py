"""The cell under `%%serve`: its lines, its errors, and which of its names is the handler."""

from __future__ import annotations

import linecache
import re
import textwrap
from types import FunctionType
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from nbserve.errors import CaptureError
from nbserve.notebook import cell

ANSI = re.compile("\x1b\\[[0-9;]*m")


def handler_of(shell: InteractiveShell, body: str) -> Any:
    ran = cell.run(shell, "digits", textwrap.dedent(body))
    return cell.find_handler(ran, shell.user_ns)


def failing_lines(shell: InteractiveShell, body: str) -> tuple[BaseException, str]:
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        cell.run(shell, "digits", textwrap.dedent(body))
    return raised.value, ANSI.sub("", "\n".join(raised.value._render_traceback_()))


HANDLER = """
import nbserve.handler
class Digits(nbserve.handler.Handler):
    def initialize(self, context): self.model = None
"""


def test_a_helper_class_below_the_handler_is_not_taken_for_it(shell: InteractiveShell) -> None:
    assert handler_of(shell, HANDLER + "class Helper:\n    pass\ndef helper(): pass\n").__name__ == "Digits"


def test_the_last_handler_of_several_is_served(shell: InteractiveShell) -> None:
    assert handler_of(shell, HANDLER + "class More(Digits): pass\n").__name__ == "More"


def test_a_class_with_torchserve_s_methods_is_a_handler(shell: InteractiveShell) -> None:
    body = "class Old:\n    def initialize(self, context): pass\n    def handle(self, data, context): return data\n"
    assert handler_of(shell, body).__name__ == "Old"


def test_a_handler_inside_an_if_is_found(shell: InteractiveShell) -> None:
    body = "if True:\n    def answer(requests):\n        return requests\n"
    assert isinstance(handler_of(shell, body), FunctionType)


def test_a_last_expression_names_what_is_served(shell: InteractiveShell) -> None:
    shell.user_ns["net"] = torch.nn.Linear(2, 1)
    assert handler_of(shell, HANDLER + "net\n") is shell.user_ns["net"]
    assert handler_of(shell, HANDLER + "len('abc')\n").__name__ == "Digits"


def test_a_class_that_the_cell_only_mentions_is_not_served(shell: InteractiveShell) -> None:
    handler_of(shell, HANDLER)
    with pytest.raises(CaptureError, match="nothing to serve"):
        handler_of(shell, "x = Digits\n")


def test_a_model_class_alone_is_explained(shell: InteractiveShell) -> None:
    with pytest.raises(CaptureError, match="Net is a model, not a handler: end the cell with an instance"):
        handler_of(shell, "import torch\nclass Net(torch.nn.Module): pass\n")


def test_an_error_shows_the_cell_s_lines_and_nothing_of_ours(shell: InteractiveShell) -> None:
    error, shown = failing_lines(shell, "x = 1\n\ndef broken():\n    return 1 / 0\nbroken()\n")
    assert isinstance(error, ZeroDivisionError)
    assert shown.index("----> 6") < shown.index("----> 5")
    assert "nbserve" not in shown
    assert "cell.py" not in shown


def test_leading_blank_lines_keep_their_numbers(shell: InteractiveShell) -> None:
    cell.run(shell, "digits", "\n\ndef answer(requests):\n    return requests\n")
    code = shell.user_ns["answer"].__code__
    assert code.co_firstlineno == 4
    assert linecache.getline(code.co_filename, 4) == "def answer(requests):\n"


def test_a_syntax_error_shows_its_line_alone(shell: InteractiveShell) -> None:
    error, shown = failing_lines(shell, "x = 1\ny = = 2\n")
    assert isinstance(error, cell.CellSyntaxError)
    assert re.search(r"(:|line )3\b", shown)
    assert "y = = 2" in shown
    assert "nbserve" not in shown


def test_ipython_syntax_works_in_the_cell(shell: InteractiveShell) -> None:
    cell.run(shell, "digits", "here = %pwd\nfiles = !echo one\ndef answer(requests):\n    return requests\n")
    assert shell.user_ns["files"] == ["one"]
    assert shell.user_ns["here"]


def test_future_imports_of_the_session_stay(shell: InteractiveShell) -> None:
    cell.run(shell, "digits", "from __future__ import annotations\ndef answer(requests: Nothing): pass\n")
    assert shell.user_ns["answer"].__annotations__ == {"requests": "Nothing"}
