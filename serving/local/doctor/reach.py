"""Whether a Triton elsewhere takes work, asked by gRPC alone: the doctor needs no tensors."""

from __future__ import annotations

from typing import Any, Literal

import grpc

READY = "/inference.GRPCInferenceService/ServerReady"
"""Open Inference Protocol, gRPC; its answer has one field, 1: ready, and the request none."""
YES = b"\x08\x01"
TIMEOUT_S = 5.0


def triton_state(address: str, timeout_s: float = TIMEOUT_S) -> Literal["ready", "not ready", "not reached", "not Triton"]:
    """Of the Triton at host:port."""
    with grpc.insecure_channel(address) as channel:
        ask: Any = channel.unary_unary(READY, bytes, bytes)
        try:
            answer = ask(b"", timeout=timeout_s)
        except grpc.RpcError as exc:
            status = getattr(exc, "code", lambda: None)()
            return "not reached" if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) else "not Triton"
    return "ready" if answer == YES else "not ready"
