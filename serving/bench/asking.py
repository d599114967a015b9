"""The bench's calls as ready bytes, for either front: prompts, images to encode, labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.bench.pictures import Prompt
from serving.client import grpc_wire
from serving.edge.proto import inference_pb2 as pb

BOUNDARY = b"medserve-bench"
MULTIPART = b"multipart/form-data; boundary=" + BOUNDARY


@dataclass(frozen=True)
class Ask:
    """One call, ready to be sent over either front.

    `kind`: what the figures are kept by. `head` and `body`: HTTP's, apart so that large bodies are kept once. `rpc`: name and
    message. `golden`: the run lengths that must come back, where one is known.
    """

    kind: str
    head: bytes
    body: bytes
    rpc: str = ""
    message: bytes = b""
    metadata: tuple[tuple[str, str], ...] = ()
    golden: bytes = b""

    def plain(self) -> tuple[str, dict[str, str]]:
        """Path and headers, for a client that writes its own requests."""
        first, *rest = self.head.decode("latin-1").strip().split("\r\n")
        fields = dict(each.split(": ", 1) for each in rest)
        return first.split()[1], {name: value for name, value in fields.items() if name not in ("Host", "Content-Length")}


@dataclass(frozen=True)
class Said:
    """What a call carries beside its body."""

    deadline_ms: int = 0
    priority: str = ""

    def headers(self) -> list[tuple[str, str]]:
        """HTTP's headers, gRPC's metadata."""
        found = [("x-deadline-ms", str(self.deadline_ms))] if self.deadline_ms else []
        return [*found, ("x-priority", self.priority)] if self.priority else found


NOTHING_SAID = Said()


def head(path: str, content_type: bytes, length: int, said: Said = NOTHING_SAID, method: str = "POST") -> bytes:
    """The request's head."""
    more = b"".join(f"{name}: {value}\r\n".encode() for name, value in said.headers())
    return b"%s %s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
        method.encode(), path.encode(), content_type, length, more,
    )  # fmt: skip


def _parts(images: Sequence[bytes], request: dict[str, Any], name: str) -> bytes:
    made = b""
    for data in images:
        made += b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="image"\r\n' % (BOUNDARY, name.encode())
        made += b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n"
    made += b'--%s\r\nContent-Disposition: form-data; name="request"\r\nContent-Type: application/json\r\n\r\n' % BOUNDARY
    return made + json.dumps(request).encode() + b"\r\n--%s--\r\n" % BOUNDARY


def _object(prompt: Prompt) -> pb.ObjectPrompt:
    return grpc_wire.object_prompts(prompt.body())[0]


def by_handle(image_id: str, prompt: Prompt, said: Said = NOTHING_SAID, kind: str = "prompt", golden: bytes = b"") -> Ask:
    """A prompt on an image that is encoded already."""
    body = json.dumps({"image_id": image_id, **prompt.body()}).encode()
    message = pb.SegmentRequest(image=pb.ImageSource(image_id=image_id), objects=[_object(prompt)])
    return Ask(
        kind, head("/v1/segment", b"application/json", len(body), said), body, "Segment", message.SerializeToString(),
        tuple(said.headers()), golden,
    )  # fmt: skip


def inline(
    data: bytes,
    prompt: Prompt,
    said: Said = NOTHING_SAID,
    kind: str = "first",
    *,
    index: int | None = None,
    golden: bytes = b"",
) -> Ask:
    """The image itself with a prompt."""
    of_image: dict[str, Any] = {} if index is None else {"image": {"index": index}}
    body = _parts([data], {**prompt.body(), **of_image}, "image")
    message = pb.SegmentRequest(image=pb.ImageSource(image=pb.Image(data=data, index=index)), objects=[_object(prompt)])
    return Ask(
        kind, head("/v1/segment", MULTIPART, len(body), said), body, "Segment", message.SerializeToString(),
        tuple(said.headers()), golden,
    )  # fmt: skip


def encode(data: bytes, said: Said = NOTHING_SAID, kind: str = "encode") -> Ask:
    """Encode ahead."""
    body = _parts([data], {}, "image")
    message = pb.EncodeImageRequest(image=pb.Image(data=data))
    return Ask(
        kind, head("/v1/images", MULTIPART, len(body), said), body, "EncodeImage", message.SerializeToString(),
        tuple(said.headers()),
    )  # fmt: skip


def classify(data: bytes, labels: Sequence[str], model: str, said: Said = NOTHING_SAID, kind: str = "classify") -> Ask:
    """One image and labels."""
    body = _parts([data], {"labels": list(labels), "model": model}, "images")
    message = pb.ClassifyRequest(
        model=model, images=[pb.ImageSource(image=pb.Image(data=data))], labels=pb.Labels(names=list(labels))
    )
    return Ask(
        kind, head("/v1/classify", MULTIPART, len(body), said), body, "Classify", message.SerializeToString(),
        tuple(said.headers()),
    )  # fmt: skip
