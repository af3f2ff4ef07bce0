"""What builders print, as recorded: the lines that are told, and what a failure is said to be."""

from __future__ import annotations

import pytest

from nbserve.export.buildlog import clean, explain, progress

BASE = "docker.io/library/python:3.11-slim-bookworm"
NO_SPACE = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
PULL = (
    "Error: creating build container: initializing source docker://localhost:1/library/python:3.99-slim: pinging "
    'container registry localhost:1: Get "https://localhost:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
)
RETRYING = (
    "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by 'NewConnectionError("
    "'<pip._vendor.urllib3.connection.HTTPSConnection object>: Failed to establish a new connection: "
    "[Errno -3] Temporary failure in name resolution')': /simple/torch/"
)
UNTRUSTED = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: "
    "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self signed certificate in certificate chain'))'"
)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("STEP 1/6: FROM python AS environment\n", "1/6: FROM python AS environment"),
        (
            "STEP 6/6: RUN --mount=type=cache,target=/x --mount=type=secret,id=y     python -m venv",
            "6/6: RUN python -m venv",
        ),
        ("[2/2] STEP 4/15: COPY bundle /opt\n", "4/15: COPY bundle /opt"),
        ("#9 [environment 5/6] RUN python -m venv /opt\n", "[environment 5/6] RUN python -m venv /opt"),
        ("#9 12.34 Collecting torch==2.9.0 (from -r requirements.lock (line 20))\n", "Collecting torch==2.9.0"),
        ("  Downloading torch-2.9.0-cp311.whl (184.0 MB)\n", "Downloading torch-2.9.0-cp311.whl"),
        ("\x1b[32mSuccessfully installed torch-2.9.0\x1b[0m\n", "Successfully installed torch-2.9.0"),
        ("Looking in links: /opt/wheels\n", None),
        ("--> 5dbd7ebfbb4e\n", None),
        ("#9 sha256:0f0f 12B / 12B done\n", None),
        ("\n", None),
    ],
)
def test_what_is_news_is_told_in_short(line: str, told: str | None) -> None:
    found = progress(clean(line))
    assert found == told or (told is not None and found is not None and found.startswith(told))


def test_a_long_step_is_cut() -> None:
    assert len(progress("STEP 6/6: RUN " + "x" * 500) or "") <= 120


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (
            [
                "ERROR: Could not find a version that satisfies the requirement weighty==9.9 (from versions: none)",
                "ERROR: No matching distribution found for weighty==9.9",
                'Error: building at STEP "RUN python -m pip install": exit status 1',
            ],
            "weighty==9.9 is not on the package index that the builder uses (it has no version of it)",
        ),
        (
            [
                "ERROR: Could not find a version that satisfies torch==2.9.0 (from versions: 2.7.0, 2.8.0)",
                "ERROR: No matching distribution found for torch==2.9.0",
            ],
            "torch==2.9.0 is not on the package index that the builder uses (it has 2.7.0, 2.8.0)",
        ),
        (
            [RETRYING, "ERROR: No matching distribution found for torch==2.9.0"],
            "the builder does not reach the package index that should have torch==2.9.0",
        ),
        (
            [UNTRUSTED, "ERROR: No matching distribution found for torch==2.9.0"],
            "pip does not trust the index that should have torch==2.9.0",
        ),
        ([PULL], f"the base image {BASE} cannot be had"),
        (
            ["ERROR: failed to solve: python:3.99: failed to resolve source metadata for python:3.99: not found"],
            f"the base image {BASE} cannot be had",
        ),
        (["Error: tag Digits:1: invalid reference format: repository name must be lowercase"], "no image can have"),
        (['ERROR: invalid tag "Digits:1": repository name must be lowercase'], "no image can have this name"),
        ([NO_SPACE], "the disk is full. Free some room"),
        (['Error: writing blob: adding layer with blob "sha256:0f": no space left on device'], "the disk is full"),
        (
            ["ERROR: BuildKit is enabled but the buildx component is missing or broken."],
            "install the package docker-bu",
        ),
        (
            ["Error: writing layer: potentially insufficient UIDs or GIDs: newuidmap: not permitted"],
            "the package uidmap",
        ),
        (['building at STEP "RUN pip install": exit status 137'], "the memory is full"),
        (
            ["ERROR: Package 'x' requires a different Python: 3.11.2 not in '>=3.12'"],
            "the base image has Python 3.11.2, but a package wants >=3.12",
        ),
        (["  error: command 'gcc' failed: No such file or directory"], "has no wheel for this image"),
        (
            ["  ERROR: Failed building wheel for odd", "x"],
            "odd has no wheel for this image and the base has no compiler",
        ),
        (["Error: out of luck", "something"], "the builder ended with an error"),
    ],
)
def test_a_failure_is_put_into_words_with_the_lines_that_say_so(lines: list[str], cause: str) -> None:
    said = explain(["STEP 1/2: FROM python", "Collecting numpy==2.0", *lines], "digits:1", BASE)
    assert said.startswith("the image digits:1 could not be built: ")
    assert cause in said.partition("\n")[0]
    assert lines[0].strip()[:200] in said.partition("\n")[2]
    assert "Collecting numpy" not in said


def test_a_failure_without_a_word_shows_the_last_lines() -> None:
    said = explain([f"line {number}" for number in range(50)], "digits:1", BASE)
    assert said.splitlines()[-1] == "    line 49"
    assert len(said.splitlines()) == 7


def test_a_long_line_is_cut_and_what_pip_passed_over_is_left_out() -> None:
    passed_over = "ERROR: Ignored the following versions that require a different python version: 1.21.2, 1.21.3"
    versions = ", ".join(f"{number}.0" for number in range(200))
    missing = (
        f"ERROR: Could not find a version that satisfies the requirement tornado==999.0 (from versions: {versions})"
    )
    said = explain([passed_over, missing, "ERROR: No matching distribution found for tornado==999.0"], "d:1", BASE)
    assert "it has 195.0, 196.0, 197.0, 198.0, 199.0" in said
    assert passed_over not in said
    assert len(said.splitlines()) == 3
    assert max(map(len, said.splitlines()[1:])) < 260
