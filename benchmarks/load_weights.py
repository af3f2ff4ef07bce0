"""How much faster `nbserve.load_weights` is than building a module and loading its state dict: prints the ratios.

    python benchmarks/load_weights.py [--gigabytes 1]

Each way runs in a fresh process, three times in turn; the page cache is warm. Medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile

WIDTH = 2048
LAYER_BYTES = 4 * WIDTH * WIDTH

MODEL = f"""
import sys, time, torch, nbserve
from nbserve.bundle.weights import load_weights
from torch import nn
torch.set_num_threads(1)
def build():
    return nn.Sequential(*(nn.Linear({WIDTH}, {WIDTH}) for _ in range(int(sys.argv[2]))))
path, x = sys.argv[1], torch.ones(1, {WIDTH})
began = time.perf_counter()
"""
WAYS = {
    "init + torch.load": "model = build(); model.load_state_dict(torch.load(path + '.pt'))",
    "init + safetensors": (
        "import safetensors.torch\nmodel = build(); safetensors.torch.load_model(model, path + '.st')"
    ),
    "load_weights, torch.save": "model = load_weights(build, path + '.pt')",
    "load_weights, safetensors": "model = load_weights(build, path + '.st')",
}
REPORT = """
loaded = time.perf_counter() - began
with torch.inference_mode(): model(x)
print(loaded, time.perf_counter() - began)
"""
SAVE = """
model = build()
torch.save(model.state_dict(), path + '.pt')
import safetensors.torch
safetensors.torch.save_model(model, path + '.st')
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    layers = round(options.gigabytes * 2**30 / LAYER_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"{folder}/w", str(layers)]
        _run(SAVE, arguments)
        times = {name: [_times(body, arguments) for _ in range(options.rounds)] for name, body in WAYS.items()}
    _print_table({name: tuple(map(statistics.median, zip(*found, strict=True))) for name, found in times.items()})


def _print_table(medians: dict[str, tuple[float, ...]]) -> None:
    for name, (loaded, answered) in medians.items():
        print(f"{name:28} loaded {loaded:7.3f} s   first answer {answered:7.3f} s")
    for ours, ordinary in zip(list(WAYS)[2:], list(WAYS)[:2], strict=True):
        ratios = [theirs / mine for theirs, mine in zip(medians[ordinary], medians[ours], strict=True)]
        print(f"{ours} is {ratios[0]:.1f} x faster to load than {ordinary}, {ratios[1]:.1f} x to the first answer")


def _times(body: str, arguments: list[str]) -> tuple[float, float]:
    loaded, answered = _run(body + REPORT, arguments).split()
    return float(loaded), float(answered)


def _run(body: str, arguments: list[str]) -> str:
    command = [sys.executable, "-c", MODEL + body, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
