"""One frozen, typed tree of settings, read once at start and handed down in slices.

Sources, later wins: the defaults below, a TOML file (`--config` or ``MEDSERVE_CONFIG``), environment variables
``MEDSERVE_<SECTION>__<FIELD>`` (for example ``MEDSERVE_HTTP__PORT=8080``). Unknown keys are errors.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from serving.errors import SetupError

CHECKOUT = Path(__file__).resolve().parent.parent


class Section(BaseModel):
    """A branch of the tree: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class HttpSettings(Section):
    """Where the HTTP front listens."""

    host: str = "127.0.0.1"
    """Address to bind. Loopback unless you decide otherwise."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port; 0 takes a free one."""


class GrpcSettings(Section):
    """Where the gRPC front listens."""

    port: int = Field(default=9000, ge=0, le=65535)
    """Port; 0 takes a free one. The address is the HTTP front's."""


class LimitSettings(Section):
    """What a request may be, checked before it costs anything."""

    max_body_bytes: int = Field(default=128 * 1024 * 1024, gt=0)
    """Largest body or message."""
    max_pixels: int = Field(default=64_000_000, gt=0)
    """Most pixels in one picture, told from the header before anything is decoded."""
    max_decoded_bytes: int = Field(default=1024 * 1024 * 1024, gt=0)
    """Most bytes a file may decompress to (a volume, a multi-frame series, a zipped NIfTI)."""
    max_objects: int = Field(default=256, gt=0)
    """Most objects with prompts in one call."""
    max_points: int = Field(default=64, gt=0)
    """Most points of one object."""
    max_images: int = Field(default=32, gt=0)
    """Most images in one call."""
    max_labels: int = Field(default=1000, gt=0)
    """Most labels, texts or templates in one call."""
    max_text_chars: int = Field(default=2000, gt=0)
    """Longest label, text or template."""
    default_deadline_s: float = Field(default=30.0, gt=0)
    """Deadline of a request that names none."""
    max_deadline_s: float = Field(default=300.0, gt=0)
    """A longer deadline is shortened to this."""


class AuthSettings(Section):
    """Who may call. Without tokens everybody on the listening address may."""

    tokens: dict[str, SecretStr] = Field(default_factory=dict)
    """Tenant name -> bearer token."""


class PoolSettings(Section):
    """One pool of replicas."""

    replicas: int = Field(default=1, ge=1)
    """How many replicas."""
    max_ongoing: int = Field(default=32, ge=1)
    """Requests inside one replica at a time; more wait at the router."""
    max_queued: int = Field(default=256, ge=0)
    """Requests that wait for the pool; more are refused with 503 and Retry-After."""
    threads: int = Field(default=2, ge=1)
    """Threads for decoding, windowing, resizing and writing masks."""
    features_bytes: int = Field(default=512 * 1024 * 1024, gt=0)
    """Budget for Features kept in one replica, bytes."""
    features_ttl_s: float = Field(default=3600.0, gt=0)
    """A handle lives this long after its last use, unless the budget evicts it first."""


class PoolsSettings(Section):
    """The pools, by class of the taxonomy."""

    adaptive: PoolSettings = PoolSettings()
    contrastive: PoolSettings = PoolSettings()


class TritonSettings(Section):
    """The Triton server of this node."""

    address: str = ""
    """host:port of its gRPC endpoint. Empty: start the embedded one."""
    call_timeout_s: float = Field(default=30.0, gt=0)
    """No call to Triton waits longer than this, whatever the request's deadline."""
    start_timeout_s: float = Field(default=120.0, gt=0)
    """How long the embedded server may take to become ready."""
    threads: int = Field(default=0, ge=0)
    """Threads of one engine on the CPU; 0 means as many as there are cores."""


class RepositorySettings(Section):
    """Where models lie."""

    path: Path = CHECKOUT / "model_repository"
    """The Triton model repository: configurations in git, artefacts beside them."""
    models: tuple[str, ...] = ()
    """Which built models to serve; empty means all."""


class Settings(Section):
    """The root of the tree."""

    home: Path = Path("~/.cache/medserve").expanduser()
    """``$MEDSERVE_HOME``: weights, logs and run files."""
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    pools: PoolsSettings = PoolsSettings()
    triton: TritonSettings = TritonSettings()
    repository: RepositorySettings = RepositorySettings()


def load(file: Path | None = None, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the tree once.

    `file`: a TOML file; `environ`: defaults to this process's; `overrides`: sections as dicts, from the command line.
    Raises SetupError with the offending key.
    """
    env = dict(os.environ if environ is None else environ)
    chosen = file or (Path(env["MEDSERVE_CONFIG"]) if env.get("MEDSERVE_CONFIG") else None)
    tree: dict[str, Any] = {}
    if chosen is not None:
        try:
            tree = tomllib.loads(chosen.read_text())
        except OSError as exc:
            raise SetupError(f"settings file {chosen}: {exc.strerror}") from exc
        except tomllib.TOMLDecodeError as exc:
            raise SetupError(f"settings file {chosen}: {exc}") from exc
    for key, value in env.items():
        if key.startswith("MEDSERVE_") and key != "MEDSERVE_CONFIG":
            _plant(tree, key.removeprefix("MEDSERVE_").lower().split("__"), value)
    for section, values in overrides.items():
        if isinstance(values, dict):
            _merge(tree.setdefault(section, {}), values)
        else:
            tree[section] = values
    try:
        return Settings.model_validate(tree)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SetupError(f"setting {place}: {first['msg']}") from exc


def _plant(tree: dict[str, Any], path: list[str], value: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = [part for part in value.split(",") if part] if path[-1] == "models" else value


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
