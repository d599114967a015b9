"""One frozen, typed tree of settings, read once at start and handed down in slices.

Sources, later wins: the defaults below, a TOML file (`--config` or ``MEDSERVE_CONFIG``), environment variables
``MEDSERVE_<SECTION>__<FIELD>`` (for example ``MEDSERVE_HTTP__PORT=8080``). Unknown keys are errors.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from serving.errors import SetupError

NOT_SETTINGS = ("MEDSERVE_CONFIG", "MEDSERVE_TOKEN", "MEDSERVE_URL", "MEDSERVE_GRPC")
"""Variables that name something else: this file, and the token and addresses of a server for the commands that ask one."""
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


class AutoscaleSettings(Section):
    """Replicas by load, in the shape `apart`. Ray Serve's autoscaler decides, on requests inside and waiting a replica."""

    max_replicas: int = Field(default=0, ge=0)
    """Most replicas; 0 keeps `replicas` fixed. With it, `replicas` is the least."""
    target_ongoing: float | None = Field(default=None, gt=0)
    """Requests inside and waiting that one replica is meant to have; 1.5 of what its engines take at a time unless said.

    An engine that has so many is busy about two thirds of the time, whether they are clicks or images. Keep it below what the
    door lets in (`max_wait_s`, `flood_waits`): the autoscaler does not see what is refused there."""
    up_after_s: float = Field(default=10.0, ge=0)
    """More load than that for so long adds replicas, seconds. Short: people wait."""
    down_after_s: float = Field(default=600.0, ge=0)
    """So little load for so long that those that stay would have less than half of the target each removes some, seconds.

    Long: each change gives some images another home and another encode."""


class PoolSettings(Section):
    """One pool of replicas."""

    replicas: int = Field(default=1, ge=1)
    """How many replicas."""
    max_ongoing: int = Field(default=32, ge=1)
    """Requests inside one replica at a time; more wait at the router."""
    max_queued: int = Field(default=256, ge=0)
    """Requests that wait for the pool; more are refused with 503 and Retry-After."""
    max_bulk: int = Field(default=16, ge=1)
    """Bulk requests inside one replica; more are refused. Well below `max_ongoing`, so that interactive ones find room."""
    max_wait_s: float = Field(default=2.0, gt=0)
    """An interactive request that would wait longer than this and one service time of its own is refused, seconds."""
    max_click_wait_s: float | None = Field(default=None, gt=0)
    """The same for a prompt on an image that is encoded already, and for all that encodes no image; `max_wait_s` unless said.

    A few service times (0.04) keep a click's 99th percentile within three times its unloaded one at any load, and refuse some
    clicks of a room full of users, who would rather wait a moment; so the default lets them.
    """
    flood_waits: float = Field(default=3.0, gt=0)
    """The same while more such work comes than can be done, for longer than a moment: in service times of the request's own.

    Clients that wait for each answer never ask for more than can be done, however many they are: this does not refuse them.
    """
    max_bulk_wait_s: float = Field(default=30.0, gt=0)
    """The same for a bulk request, seconds: as long as a request may take unless it says more."""
    parallel: int = Field(default=1, ge=1)
    """Requests that the engines of one node work on at a time: 1 on a CPU, more on a GPU that batches."""
    max_tenant_share: float = Field(default=0.5, gt=0, le=1)
    """The part of the places and of the wait that one tenant may fill where there are several, 0..1."""
    threads: int = Field(default=2, ge=1)
    """Threads for decoding, windowing, resizing and writing masks."""
    autoscale: AutoscaleSettings = AutoscaleSettings()
    surge_percent: int = Field(default=100, ge=0, le=100)
    """In an upgrade, so many percent of the replicas start beside the old ones before these stop; 0 stops first.

    A node needs `resources` to spare for them."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray resources that a replica takes. On a cluster, one that only nodes with a Triton offer: {"triton": 1}."""
    vectors_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Budget for image vectors kept in one replica, bytes."""


class PoolsSettings(Section):
    """The pools, by class of the taxonomy."""

    adaptive: PoolSettings = PoolSettings()
    contrastive: PoolSettings = PoolSettings()


class RouterSettings(Section):
    """The ingress."""

    replicas: int = Field(default=2, ge=1)
    """How many replicas of the router; with two, one that dies takes down only what it held."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Ray resources that a replica takes, to keep routers on nodes of their own: {"router": 1}."""


class FeaturesSettings(Section):
    """The arena of Features of this node, shared by its replicas and its Triton."""

    budget_bytes: int = Field(default=512 * 1024 * 1024, gt=0)
    """Shared memory for Features; the least recently used leave when it is full. LiteMedSAM's take 10 MiB an image."""
    ttl_s: float = Field(default=3600.0, gt=0)
    """A handle lives this long after its last use, unless the budget evicts it first."""
    region: str = ""
    """Name of the arena's file in /dev/shm, where another program owns it. Empty: make one."""


class VolumeSettings(Section):
    """Whole volumes: what one may be, and the jobs that work on them on this node."""

    max_body_bytes: int = Field(default=256 * 1024 * 1024, gt=0)
    """Largest body of a call that brings a volume."""
    max_voxels: int = Field(default=256 * 1024 * 1024, gt=0)
    """Most voxels, told from the headers before anything is decoded. A CT of 512 x 512 x 300 has 79 million."""
    memory_bytes: int = Field(default=1024 * 1024 * 1024, gt=0)
    """Memory that one volume may take while it is worked on: its samples, what they are unpacked from, and the label map."""
    max_files: int = Field(default=4096, gt=0)
    """Most files of one series."""
    kept_features_bytes: int = Field(default=1024 * 1024 * 1024, ge=0)
    """Features of slices that a job needs twice, kept beside the arena, bytes a job; others are encoded twice."""
    max_running: int = Field(default=2, ge=1)
    """Jobs that work at a time on this node; one more is refused with 503 and Retry-After."""
    max_jobs: int = Field(default=64, ge=1)
    """Jobs that are remembered on this node; the oldest that are done make room."""
    max_result_bytes: int = Field(default=1024 * 1024 * 1024, gt=0)
    """Room for the results of all jobs of this node; the oldest make room."""
    ttl_s: float = Field(default=1800.0, gt=0)
    """How long a job that is done is remembered with its result, seconds."""
    deadline_s: float = Field(default=1800.0, gt=0)
    """Longest time that a job may take; a request may ask for less."""
    supports: Path | None = None
    """The folder of the support sets that `medserve models support` makes. None: `supports` in ``$MEDSERVE_HOME``."""
    spool: Path | None = None
    """Where jobs and results lie, a folder that all replicas of this node see, or of several nodes that share it. None: the run
    directory of `medserve up`."""


class TritonSettings(Section):
    """The Triton server of this node."""

    address: str = ""
    """host:port of its gRPC endpoint. Empty: start the embedded one."""
    key: SecretStr = SecretStr("")
    """What Triton asks for before it maps shared memory, where it was started with `--grpc-restricted-protocol`."""
    call_timeout_s: float = Field(default=300.0, gt=0)
    """No call to Triton waits longer than this, whatever the request's deadline; nor an answer of the warm-up.

    SAM's ViT-H takes more than a minute an image on two cores, and several times that on busy ones.
    """
    start_timeout_s: float = Field(default=120.0, gt=0)
    """How long the embedded server may take to become ready, and how long the warm-up waits for another."""
    threads: int = Field(default=0, ge=0)
    """Threads of one engine on the CPU; 0 means as many as there are cores."""


class RepositorySettings(Section):
    """Where models lie."""

    path: Path = CHECKOUT / "model_repository"
    """The Triton model repository: configurations in git, artefacts beside them."""
    models: tuple[str, ...] = ()
    """Which built models to serve; empty means all."""


class LogSettings(Section):
    """What is logged, how and where: `docs/logs.md`."""

    format: Literal["json", "text"] = "json"
    """One JSON object a line, or the same for people."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """From `info` on there is one line a request."""
    to: Literal["file", "stderr"] = "file"
    """`<home>/logs/medserve.log`, or standard error, where Kubernetes looks."""
    max_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """A file larger than this is put aside as `medserve.log.1`, in place of the one that lay there."""


class TracingSettings(Section):
    """Spans to an OpenTelemetry collector: `docs/tracing.md`."""

    endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """The collector's OTLP over HTTP, for example http://127.0.0.1:4318. Empty: no tracing."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """The part of the requests that is traced, 0..1. One that comes with a `traceparent` does as that says."""


class Settings(Section):
    """The root of the tree."""

    home: Path = Path("~/.cache/medserve").expanduser()
    """``$MEDSERVE_HOME``: weights, logs and run files."""
    offline: bool = False
    """Never fetch weights over a network: they are in the store, or `medserve models` says that they are not."""
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    limits: LimitSettings = LimitSettings()
    auth: AuthSettings = AuthSettings()
    shape: Literal["together", "apart"] = "together"
    """Where the pools run: in the router's processes (one machine), or as deployments of their own (a cluster)."""
    router: RouterSettings = RouterSettings()
    pools: PoolsSettings = PoolsSettings()
    features: FeaturesSettings = FeaturesSettings()
    volumes: VolumeSettings = VolumeSettings()
    triton: TritonSettings = TritonSettings()
    repository: RepositorySettings = RepositorySettings()
    logs: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    versions: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Model -> version -> percent of the images that the version answers where the model is asked for without one."""

    def support_sets(self) -> Path:
        """The folder of support sets."""
        return self.volumes.supports or self.home / "supports"

    def on_this_node(self, environ: Mapping[str, str] = os.environ) -> Settings:
        """The same with this node's own Triton, arena and models, where its environment names them. Called in a replica."""
        triton, features, repository = self.triton, self.features, self.repository
        if address := environ.get("MEDSERVE_TRITON__ADDRESS"):
            triton = triton.model_copy(update={"address": address})
        if region := environ.get("MEDSERVE_FEATURES__REGION"):
            features = features.model_copy(update={"region": region})
        if key := environ.get("MEDSERVE_TRITON__KEY"):
            triton = triton.model_copy(update={"key": SecretStr(key)})
        if path := environ.get("MEDSERVE_REPOSITORY__PATH"):
            repository = repository.model_copy(update={"path": Path(path)})
        return self.model_copy(update={"triton": triton, "features": features, "repository": repository})


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
        if key.startswith("MEDSERVE_") and key not in NOT_SETTINGS:
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
