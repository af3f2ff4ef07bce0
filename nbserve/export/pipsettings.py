"""Where pip takes packages from on this machine, put so that the same pip in a builder's container finds them. Pure."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What says where packages are and how to reach them. The rest, such as `user` or `target`, is about this machine alone,
# and of constraints nothing is left to say where every version is pinned.
_INDEXES = ("index-url", "extra-index-url", "find-links")
_CERTIFICATES = ("cert", "client-cert")
_REACH = ("no-index", "trusted-host", "proxy", "timeout", "default-timeout", "retries", "only-binary", "no-binary")
# Where a build sees the secret `pipcert`.
CERTIFICATE = "/run/secrets/pipcert"
_TAKEN = (*_INDEXES, *_CERTIFICATES, *_REACH)


@dataclass(frozen=True)
class PipSettings:
    """pip's settings as one configuration file. `paths` are the files and folders of this machine that they name.

    `certificate` is one of them, whom pip trusts.
    """

    text: str = ""
    paths: tuple[Path, ...] = ()
    names_index: bool = False
    certificate: Path | None = None

    def without_paths(self) -> PipSettings:
        """The same for a builder that cannot show its container anything of this machine but secrets."""
        sections = _without_local(_sections(self.text))
        if self.certificate is not None:
            sections.setdefault("install", {})["cert"] = CERTIFICATE
        return PipSettings(_text(sections), (), self.names_index, self.certificate)


def parse(listing: str) -> PipSettings:
    """From what `pip config list` prints: all its files and PIP_ variables, merged as pip does it."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    of_environment: dict[str, str] = {}
    for line in listing.splitlines():
        if found := re.fullmatch(r"(:env:|global|install)\.([a-z-]+)=(['\"].*)", line.strip()):
            section, name, value = found.groups()
            if name in _TAKEN:
                place = of_environment if section == ":env:" else sections[section]
                place[name] = _absolute(name, str(ast.literal_eval(value)))
    # pip lets its variables win over all files, and a command's own section over the global one.
    sections["install"].update(of_environment)
    values = [
        (name, word) for options in sections.values() for name, value in options.items() for word in _words(name, value)
    ]
    paths = {_mounted(name, path) for name, word in values if (path := _path_of(name, word))}
    trusted = [Path(word) for name, word in values if name == "cert"]
    names_index = any(name in _INDEXES for name, _ in values)
    return PipSettings(_text(sections), tuple(sorted(paths)), names_index, trusted[-1] if trusted else None)


def offers_torch(listing: str, version: str, is_gpu: bool) -> bool:
    """Whether `pip index versions torch` shows the build that is wanted, which the index of everybody has not."""
    # What is installed is printed too, and need not be on the index any more.
    available = re.search(r"^Available versions: (.*)", listing, re.MULTILINE)
    wanted = f"{version}+{'cu' if is_gpu else 'cpu'}"
    return available is not None and any(found.startswith(wanted) for found in available[1].split(", "))


def _absolute(name: str, value: str) -> str:
    """pip reads a relative path from where it runs: here, and not in the container."""
    words = (str(Path(word).absolute()) if _is_relative(name, word) else word for word in _words(name, value))
    return "\n".join(words)


def _words(name: str, value: str) -> list[str]:
    return value.split() if name in _INDEXES else [value]


def _is_relative(name: str, word: str) -> bool:
    return name in (*_CERTIFICATES, "find-links") and "://" not in word and not word.startswith("/")


def _path_of(name: str, word: str) -> Path | None:
    """The file or folder of this machine that a value means."""
    if name in _INDEXES and word.startswith("file://"):
        return Path(unquote(urlsplit(word).path))
    if name in (*_CERTIFICATES, "find-links") and "://" not in word:
        return Path(word)
    return None


def _mounted(name: str, path: Path) -> Path:
    """An index on disk has its pages in `simple`, and its files beside that."""
    return path.parent if name.endswith("index-url") and path.name == "simple" else path


def _without_local(sections: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {section: _reachable(options) for section, options in sections.items()}


def _reachable(options: Mapping[str, str]) -> dict[str, str]:
    left = {
        name: "\n".join(word for word in _words(name, value) if not _path_of(name, word))
        for name, value in options.items()
    }
    return {name: value for name, value in left.items() if value}


def _sections(text: str) -> dict[str, dict[str, str]]:
    parser = RawConfigParser()
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def _text(sections: Mapping[str, Mapping[str, str]]) -> str:
    parser = RawConfigParser()
    parser.read_dict({section: options for section, options in sections.items() if options})
    file = io.StringIO()
    parser.write(file)
    return file.getvalue()
