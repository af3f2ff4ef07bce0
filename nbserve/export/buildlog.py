"""What docker, podman and buildah print: the lines worth showing, and what a failure means. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_DOCKER_PREFIX = re.compile(r"^#\d+ (?:\d+\.\d+ )?")
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP (\d+/\d+: .*)|^\[[^\]]*\d+/\d+\] .*")
_MOUNTS = re.compile(r"(?<=RUN )(?: *--mount=\S+ +)+")
_PIP = re.compile(r"^ *(?:(?:Collecting|Downloading|Building wheel) \S+|Installing collected|Successfully installed)")
_MATTERS = re.compile(
    r"error|denied|failed|exit status|exit code|killed|cannot|could not|no such|not found|unable", re.IGNORECASE
)
_SHOWN_CHARS = 120
_LAST_LINES = 6
_QUOTED_CHARS = 240

_DISK = re.compile(r"no space left on device|\[Errno 28\]|disk quota exceeded", re.IGNORECASE)
_NO_MATCH = re.compile(r"No matching distribution found for ([^\s;]+)")
_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")
_NETWORK = re.compile(
    r"failed to establish a new connection|name resolution|name or service not known|network is unreachable"
    r"|connection refused|read timed out|connecttimeout|readtimeout|proxyerror",
    re.IGNORECASE,
)
_CERTIFICATE = re.compile(r"CERTIFICATE_VERIFY_FAILED|SSLError|TLS CA certificate bundle", re.IGNORECASE)
_BASE = re.compile(
    r"pull access denied|manifest (?:for \S+ not found|unknown)|failed to resolve source metadata|unable to pull"
    r"|initializing source docker://|pinging container registry|image not known|short-name .* did not resolve"
    r"|failed to resolve reference|creating build container|no such image",
    re.IGNORECASE,
)
_PYTHON = re.compile(r"requires a different Python: (\S+) not in '([^']*)'")
_NO_BUILDX = re.compile(r"buildx component is missing|unknown flag: --secret|requires BuildKit", re.IGNORECASE)
_NO_IDS = re.compile(r"not enough IDs available|newuidmap|newgidmap|no subuid ranges", re.IGNORECASE)
_MEMORY = re.compile(r"exit (?:status|code:?) 137|signal: killed|cannot allocate memory", re.IGNORECASE)
_TAG = re.compile(r"invalid reference format|invalid tag|parsing target image name", re.IGNORECASE)
_HASHES = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)
_COMPILER = re.compile(r"(?:command|unable to execute) '?\S*(?:gcc|g\+\+)|Failed building wheel for (\S+)")


def clean(line: str) -> str:
    """A line without colours and what else a terminal understands."""
    return _ESCAPES.sub("", line).rstrip()


def progress(line: str) -> str | None:
    """What of a cleaned line is news: a step that begins, a package that comes."""
    text = _MOUNTS.sub("", _DOCKER_PREFIX.sub("", line))
    if step := _STEP.match(text):
        return (step.group(1) or text)[:_SHOWN_CHARS]
    return text.strip()[:_SHOWN_CHARS] if _PIP.match(text) else None


def explain(lines: Sequence[str], tag: str, base: str) -> str:
    """Why a build failed and what to do, with the last lines that say so."""
    text = "\n".join(lines)
    return f"the image {tag} could not be built: {_cause(text, base)}\n{_quoted(lines)}".rstrip()


def _cause(text: str, base: str) -> str:
    if _DISK.search(text):
        return (
            "the disk is full. Free some room (docker system prune, podman system prune, buildah prune) and try again"
        )
    if _MEMORY.search(text):
        return (
            "the memory is full: what installs the packages was killed. Give the builder more, or stop what else runs"
        )
    if _TAG.search(text):
        return "no image can have this name; take lower-case letters, digits, dots and dashes, as in digits:1"
    if _NO_BUILDX.search(text):
        return "this docker has no BuildKit; install the package docker-buildx-plugin (on Debian docker-buildx)"
    if _NO_IDS.search(text):
        return "this user may not map other users' ids; install the package uidmap, and name the user in /etc/subuid"
    if _BASE.search(text):
        return f"the base image {base} cannot be had. Does this machine reach its registry? --base names another one"
    return _pip_cause(text) or "the builder ended with an error"


def _pip_cause(text: str) -> str | None:
    missing = _NO_MATCH.search(text)
    package = missing.group(1) if missing else "packages"
    if _CERTIFICATE.search(text):
        return f"pip does not trust the index that should have {package}; name its certificate in pip's setting `cert`"
    if _NETWORK.search(text):
        return f"the builder does not reach the package index that should have {package}"
    if python := _PYTHON.search(text):
        return f"the base image has Python {python.group(1)}, but a package wants {python.group(2)}; name another base"
    if missing:
        return _not_on_the_index(package, text)
    if _HASHES.search(text):
        return "a package is not the one it was: its hash differs from the recorded one"
    if compiled := _COMPILER.search(text):
        return (
            f"{compiled.group(1) or 'a package'} has no wheel for this image and the base has no compiler; "
            "take a version with a wheel, or a base with a compiler"
        )
    return None


def _not_on_the_index(package: str, text: str) -> str:
    versions = _VERSIONS.search(text)
    known = versions.group(1).split(", ") if versions and versions.group(1) not in ("", "none") else []
    has = f"it has {', '.join(known[-5:])}" if known else "it has no version of it"
    return (
        f"{package} is not on the package index that the builder uses ({has}). Name the index that has it "
        "(--index-url for torch, pip's settings for all), or install it here from its source, so that it travels along"
    )


def _quoted(lines: Sequence[str]) -> str:
    said = [line for line in lines if line.strip() and "Ignored the following" not in line]
    mattering = [line for line in said if _MATTERS.search(line)]
    return "\n".join(f"    {_cut(line.strip())}" for line in (mattering or said)[-_LAST_LINES:])


def _cut(line: str) -> str:
    return line if len(line) <= _QUOTED_CHARS else f"{line[:_QUOTED_CHARS]} ..."
