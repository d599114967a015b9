"""What the users share: a call over HTTP or gRPC, ready bytes in both cases, and a row of statistics for each of its stages.

With `--retries` they heed what a refusal asks for, as the package's own client does with its `retries`.
"""

import os
import time

import grpc
import grpc.experimental.gevent
import requests
from locust import User

from serving.bench import wire
from serving.client import grpc_wire
from serving.client.fault import MedserveError, waiting

grpc.experimental.gevent.init_gevent()

ANSWERS = wire.ANSWERS
TOKEN = os.environ.get("MEDSERVE_TOKEN", "")
AUTHORIZATION = {"authorization": f"Bearer {TOKEN}"} if TOKEN else {}
"""What each call says of who it is, where the server asks."""


AGAIN = "send_image_again"
"""The code of a handle that is gone."""


class Fault(Exception):
    """The server refused, or gave a wrong mask."""


class Calls:
    """`call(ask)` gives a `wire.Reply`, or None where it failed; locust has counted it."""

    abstract = True
    code = ""
    """Of the last answer, where it was an error."""

    def call(self, ask, name="", since=None):
        """One call, counted under the ask's kind, from the moment when its user wanted it (`since`, of `time.perf_counter`).

        What was refused meanwhile and asked again is counted apart, as `refused`, and is no failure; nor is a lost handle
        (`again`) of a user who will send the image again.
        """
        start = time.perf_counter() if since is None else since
        name, retries = name or ask.kind, self.environment.parsed_options.retries
        for attempt in range(retries + 1):
            reply, failure = self._once(ask)
            said = _error(reply)
            self.code = said.code if said else ""
            if said is None or not said.retryable or attempt == retries:
                break
            self.count("refused", f"{name}: {failure}", 0, 0, None)
            time.sleep(said.wait_s(attempt))
        spent_ms = 1000 * (time.perf_counter() - start)
        if retries and self.code == AGAIN:
            self.count("again", name, spent_ms, 0, None)
            return None
        self.count(self.front, name, spent_ms, len(reply.body) if reply is not None else 0, failure)
        if failure is None:
            for stage, ms in reply.stages_ms.items():
                self.count("stage", f"{ask.kind}: {stage}", ms, 0, None)
        return None if failure else reply

    def _once(self, ask):
        """(the reply or None, why it is no good or None)."""
        try:
            reply = self.send(ask)
        except (grpc.RpcError, OSError) as exc:
            return None, exc
        if not reply.ok:
            return reply, Fault(f"{reply.status} {_code(reply)}")
        wrong = ask.golden and reply.counts() != ask.golden
        return reply, Fault("the mask is not the golden one") if wrong else None

    def count(self, kind, name, ms, size, failure):
        """One row of locust's statistics."""
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=ms, response_length=size, exception=failure, context={}
        )


def _error(reply):
    """What the package's client makes of an answer, or of none; None where all is well."""
    if reply is None:
        return MedserveError("unreachable", "", 0)
    if reply.ok:
        return None
    return MedserveError(_code(reply) or "unreachable", "", reply.status, waiting(reply.header(b"retry-after") or None))


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
