"""What the users share: a call over HTTP or gRPC, ready bytes in both cases, and a row of statistics for each of its stages."""

import os
import time

import grpc
import grpc.experimental.gevent
import requests
from locust import User

from serving.bench import wire
from serving.client import grpc_wire

grpc.experimental.gevent.init_gevent()

ANSWERS = wire.ANSWERS
TOKEN = os.environ.get("MEDSERVE_TOKEN", "")
AUTHORIZATION = {"authorization": f"Bearer {TOKEN}"} if TOKEN else {}
"""What each call says of who it is, where the server asks."""


class Fault(Exception):
    """The server refused, or gave a wrong mask."""


class Calls:
    """`call(ask)` gives a `wire.Reply`, or None where it failed; locust has counted it."""

    abstract = True

    def call(self, ask, name=""):
        """One call, counted under the ask's kind."""
        start = time.perf_counter()
        failure = reply = None
        try:
            reply = self.send(ask)
            if not reply.ok:
                failure = Fault(f"{reply.status} {_code(reply)}")
            elif ask.golden and reply.counts() != ask.golden:
                failure = Fault("the mask is not the golden one")
        except (grpc.RpcError, OSError) as exc:
            failure = exc
        spent_ms = 1000 * (time.perf_counter() - start)
        size = len(reply.body) if reply is not None else 0
        self.count(self.front, name or ask.kind, spent_ms, size, failure)
        if failure is None:
            for stage, ms in reply.stages_ms.items():
                self.count("stage", f"{ask.kind}: {stage}", ms, 0, None)
        return None if failure else reply

    def count(self, kind, name, ms, size, failure):
        """One row of locust's statistics."""
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=ms, response_length=size, exception=failure, context={}
        )


def _code(reply):
    try:
        return reply.header(b"x-error-code") or reply.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""


class OverHttp(Calls, User):
    """With requests, as locust's own HttpUser; a call is counted once, by `call`."""

    abstract = True
    front = "HTTP"

    def on_start(self):
        """Open the session."""
        self.session = requests.Session()

    def on_stop(self):
        """Close it."""
        self.session.close()

    def send(self, ask):
        """The reply."""
        path, headers = ask.plain()
        answer = self.session.post(
            f"{self.environment.host}{path}", data=ask.body, headers={**headers, **AUTHORIZATION}, timeout=60
        )
        head = "\r\n" + "".join(f"{name.lower()}:{value}\r\n" for name, value in answer.headers.items())
        return wire.Reply(answer.status_code, head.encode("latin-1"), answer.content)


class OverGrpc(Calls, User):
    """With grpc's client, made for gevent."""

    abstract = True
    front = "gRPC"

    def on_start(self):
        """Open the channel."""
        self.channel = grpc.insecure_channel(self.environment.parsed_options.grpc, options=grpc_wire.CHANNEL_OPTIONS)
        self.methods = {name: self.channel.unary_unary(f"/{grpc_wire.SERVICE}/{name}") for name in ANSWERS}

    def on_stop(self):
        """Close it."""
        self.channel.close()

    def send(self, ask):
        """The reply."""
        try:
            data, call = self.methods[ask.rpc].with_call(
                ask.message, metadata=(*(ask.metadata or ()), *AUTHORIZATION.items()), timeout=60
            )
        except grpc.RpcError as exc:
            trailing = dict(exc.trailing_metadata() or ())
            if "x-error-code" not in trailing:
                raise
            return wire.Reply(wire.STATUS.get(exc.code(), 500), wire.as_head(trailing), b"")
        head = wire.as_head(dict(call.trailing_metadata() or ()))
        return wire.Reply(200, head, data, ANSWERS[ask.rpc].FromString(data))
