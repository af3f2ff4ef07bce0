"""The README runs as it stands: its Python blocks in one IPython shell, its curl line against what they serve."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"

SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for line in sys.stdin:
    result = shell.run_cell(json.loads(line))
    print("DONE" if result.success else "FAILED", flush=True)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_curl(line: str) -> object:
    """Send what a curl line says; curl itself may not be there."""
    words = shlex.split(line)
    header, body = words[words.index("-H") + 1], words[words.index("-d") + 1]
    name, _, value = header.partition(":")
    request = urllib.request.Request(words[-1], body.encode(), {name: value.strip()})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def test_the_first_code_stands_within_thirty_lines():
    lines = README.read_text().splitlines()
    assert lines.index("```python") < 30
    assert "pip install 'nbserve-torch[jupyter]'" in lines


@pytest.mark.process
def test_the_code_of_the_readme_runs():
    port = free_port()
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def run(cell: str) -> None:
        said = []
        shell.stdin.write(json.dumps(cell) + "\n")
        shell.stdin.flush()
        while (line := shell.stdout.readline()) not in ("DONE\n", "FAILED\n", ""):
            said.append(line)
        assert line == "DONE\n", "".join(said)

    try:
        first, serving, changed = [block.replace("8080", str(port)) for block in blocks("python")]
        run(first)
        run(serving)
        [curl] = [block for block in blocks("bash") if block.startswith("curl")]
        scores = run_curl(curl.replace("8080", str(port)))
        assert len(scores) == 3
        run(changed)
        shares = run_curl(curl.replace("8080", str(port)))
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert shares != scores
    finally:
        shell.communicate(timeout=60)
