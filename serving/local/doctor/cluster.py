"""Checks of a running server or cluster from outside, one function a check. What is not reached is a finding, not an error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from serving import __version__
from serving.local.doctor.finding import Finding, judged

TIMEOUT_S = 10.0
MOST_SKEW_S = 2.0
"""The Date header counts whole seconds (RFC 9110, section 6.6.1)."""
NEEDED = ("medserve_requests", "medserve_stage_duration_seconds", "medserve_pool_ready")


def examine_cluster(url: str, grpc_address: str = "", ray: str = "", token: str = "") -> tuple[Finding, ...]:
    """Every check. `url`: of the HTTP front; `grpc_address`: host:port of the other; `ray`: URL of Ray's dashboard."""
    found: list[Finding] = []
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_S, headers=headers) as client:
        alive = http_front(client)
        found.append(alive)
        if not alive.bad:
            for check in (version, ready, models, metrics, clock):
                found += check(client)
    if grpc_address:
        found.append(grpc_front(grpc_address))
    if ray:
        found += ray_serve(ray)
    return tuple(found)


def http_front(client: httpx.Client) -> Finding:
    """Whether the front answers at all."""
    answer = _get(client, "/livez")
    remedy = "is it up, is this its address, and does a firewall or network policy let this machine in?"
    if client.base_url.scheme not in ("http", "https") or not client.base_url.host:
        return Finding("HTTP front", "not a URL", "fail", "write it as http://HOST:PORT (https:// behind an ingress with TLS)")
    if isinstance(answer, str):
        return Finding("HTTP front", answer, "fail", remedy)
    found = f"status {answer.status_code}"
    if answer.status_code >= 500:
        remedy = "a proxy answers and no router behind it does: look at the routers (`serve status`; their pods and logs)"
    elif answer.status_code != 200:
        remedy = (
            "another server answers there: is this the address of medserve's HTTP front (8000, in the chart port 80 of *-http)?"
        )
    return judged("HTTP front", found, answer.status_code == 200, remedy)


def version(client: httpx.Client) -> Iterator[Finding]:
    """The server's version beside this program's."""
    said = _json(client, "/openapi.json").get("info", {}).get("version", "unknown")
    yield judged("server version", said, said == __version__, f"this program is {__version__}: use the same", "warn")


def ready(client: httpx.Client) -> Iterator[Finding]:
    """Every part of `/readyz`."""
    parts = _json(client, "/readyz").get("parts", {})
    if not parts:
        yield Finding("readiness", "no answer", "fail", "look at the router's log")
    for part, state in parts.items():
        yield judged(f"pool {part}", state, state == "ready", "see MedservePoolUnready in docs/runbook.md")


def models(client: httpx.Client) -> Iterator[Finding]:
    """What is served, how precisely."""
    served = _json(client, "/v1/models").get("models")
    if served is None:
        yield Finding("models", "not told", "warn", "where the server asks for a token, say --token (or MEDSERVE_TOKEN)")
        return
    for model in served:
        yield Finding(f"model {model.get('name')}", f"{model.get('precision')}, checkpoint {str(model.get('digest'))[:12]}")
    if not served:
        yield Finding("models", "none is served", "fail", "build one: `medserve models build`")


def metrics(client: httpx.Client) -> Iterator[Finding]:
    """The scrape, and in it the self-checks and the arena."""
    answer = _get(client, "/metrics")
    if isinstance(answer, str) or answer.status_code != 200:
        said = answer if isinstance(answer, str) else f"status {answer.status_code}"
        yield Finding("metrics", said, "fail", "Prometheus needs GET /metrics on the HTTP port")
        return
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    missing = [name for name in NEEDED if name not in families]
    remedy = "is PROMETHEUS_MULTIPROC_DIR one folder for all replicas of the node?"
    yield judged("metrics", f"{len(families)} families", not missing, f"{', '.join(missing)} missing: {remedy}")
    yield from _selfchecks(families.get("medserve_selfcheck_ok"))
    yield from _arena(families)


def _selfchecks(family: Any) -> Iterator[Finding]:
    for sample in family.samples if family else ():
        what = f"self-check of {sample.labels['engine']}"
        remedy = "take the node out of service and build the engine again there: MedserveSelfCheckFailed in docs/runbook.md"
        yield judged(what, "passed" if sample.value else "failed", bool(sample.value), remedy)


def _arena(families: dict[str, Any]) -> Iterator[Finding]:
    budget = families.get("medserve_features_arena_budget_bytes")
    full = families.get("medserve_features_arena_full")
    for sample in budget.samples if budget else ():
        turned_away = sum(each.value for each in full.samples if each.name.endswith("_total")) if full else 0
        found = f"{int(sample.value) >> 20} MiB, {turned_away:.0f} images turned away since the start"
        yield judged("Features arena", found, not turned_away, "see MedserveArenaFull in docs/runbook.md", "warn")


def clock(client: httpx.Client) -> Iterator[Finding]:
    """The server's clock against this machine's."""
    sent = time.time()
    answer = _get(client, "/livez")
    if isinstance(answer, str) or "date" not in answer.headers:
        yield Finding("clock", "the server does not tell its time")
        return
    middle = (sent + time.time()) / 2
    skew = abs(parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5 - middle)
    found = f"within {max(skew, 1):.0f} s of this machine's"
    yield judged("clock", found, skew <= MOST_SKEW_S, "synchronise both: logs and traces are read side by side", "warn")


def grpc_front(address: str) -> Finding:
    """grpc.health.v1 of the gRPC front."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as exc:
            code = getattr(exc, "code", None)  # the stubs' RpcError has none, what is raised has
            found = code().name if code else type(exc).__name__
            return Finding("gRPC front", found, "fail", "is this its address, and does what lies between let HTTP/2 through?")
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return judged("gRPC front", state, state == "SERVING", "see the pools above")


def ray_serve(address: str) -> Iterator[Finding]:
    """The applications of Ray Serve, as Ray's dashboard tells them."""
    with httpx.Client(base_url=address.rstrip("/"), timeout=TIMEOUT_S) as client:
        answer = _get(client, "/api/serve/applications/")
        if isinstance(answer, str) or answer.status_code != 200:
            said = answer if isinstance(answer, str) else f"status {answer.status_code}"
            yield Finding("Ray's dashboard", said, "fail", "is it started, and is this its address (port 8265)?")
            return
        yield Finding("Ray's dashboard", "answers")
        for name, application in answer.json().get("applications", {}).items():
            state = str(application.get("status"))
            yield judged(f"Ray Serve application {name}", state, state == "RUNNING", "`serve status` says what it waits for")
            for part, deployment in application.get("deployments", {}).items():
                state = str(deployment.get("status"))
                yield judged(f"deployment {part}", state, state == "HEALTHY", "its replicas' logs lie on Ray's nodes", "warn")


def _get(client: httpx.Client, path: str) -> httpx.Response | str:
    """The answer, or in a few words why there is none."""
    try:
        return client.get(path)
    except httpx.TimeoutException:
        return f"no answer within {TIMEOUT_S:.0f} s"
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return f"not reached ({type(exc).__name__})"


def _json(client: httpx.Client, path: str) -> dict[str, Any]:
    """The body of an answer that is an object; empty where it is none."""
    answer = _get(client, path)
    try:
        body = {} if isinstance(answer, str) else answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
