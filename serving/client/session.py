"""SegmentSession from the client's side: one stream, an image, then prompts on it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from itertools import count
from typing import Any, Self, Unpack

import grpc

from serving.client import calls, grpc_wire
from serving.client.calls import ImageInput, SegmentOptions, ViewOptions
from serving.client.fault import MedserveError
from serving.client.results import ImageHandle, Segmentation
from serving.edge.proto import inference_pb2 as pb


class Session:
    """Blocking: each method sends one message and waits for its answer. Not for several threads at a time."""

    def __init__(
        self, channel: grpc.Channel, address: str, metadata: tuple[tuple[str, str], ...], model: str, timeout_s: float | None
    ) -> None:
        self._address = address
        self._model = model
        self._numbers = count(1)
        self._sent: queue.SimpleQueue[pb.SegmentSessionRequest | None] = queue.SimpleQueue()
        method: Any = channel.stream_stream(
            f"/{grpc_wire.SERVICE}/SegmentSession", grpc_wire.serialise, pb.SegmentSessionResponse.FromString
        )
        self._stream = method(iter(self._sent.get, None), metadata=metadata, timeout=timeout_s)
        self._answers: Iterator[pb.SegmentSessionResponse] = iter(self._stream)

    def show(self, image: ImageInput, **said: Unpack[ViewOptions]) -> ImageHandle:
        """The image that prompts are about from now on. Raises MedserveError."""
        call = calls.encode_image(image, **said)
        asked = pb.EncodeImageRequest(model=self._model, image=grpc_wire.image(call.uploads[0]))
        made: ImageHandle = grpc_wire.read(self._ask(pb.SegmentSessionRequest(image=asked)).image)
        return made

    def segment(self, **said: Unpack[SegmentOptions]) -> Segmentation:
        """Prompts on the image that is shown. Raises MedserveError."""
        said["image_id"] = "the one that is shown"
        call = calls.segment(None, **said)
        prompt = pb.SessionPrompt(objects=grpc_wire.object_prompts(call.body), **grpc_wire.mask_options(call.body))
        made: Segmentation = grpc_wire.read(self._ask(pb.SegmentSessionRequest(prompt=prompt)).masks)
        return made

    def close(self) -> None:
        """End the stream."""
        self._sent.put(None)
        self._stream.cancel()

    def _ask(self, message: pb.SegmentSessionRequest) -> pb.SegmentSessionResponse:
        message.id = str(next(self._numbers))
        self._sent.put(message)
        try:
            answer = next(self._answers)
        except grpc.RpcError as exc:
            raise grpc_wire.error(exc, self._address) from exc
        except StopIteration as exc:
            raise MedserveError("cancelled", "the server ended the session", "OK") from exc
        if answer.WhichOneof("kind") == "error":
            error = answer.error
            raise MedserveError(error.code, error.message, "OK", error.retry_after_s or None, error.param or None)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
