"""The clients that block: `Client` over HTTP, `GrpcClient` over gRPC. Both have the methods of `Methods`."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any, Self, Unpack

import grpc
import httpx

from serving.client import calls, grpc_volumes, grpc_wire, http_wire, volumes
from serving.client.calls import Call, ClassifyOptions, ImageInput, Options, R, SegmentOptions, ViewOptions
from serving.client.fault import MedserveError, unreachable
from serving.client.results import Classification, Embeddings, ImageHandle, Model, Segmentation, VolumeSegmentation
from serving.client.session import Session
from serving.client.volumes import OnProgress, Stream, VolumeCall, VolumeInput, VolumeOptions
from serving.edge.proto import inference_pb2 as pb


class Methods(ABC):
    """What a client can do. Every method raises MedserveError; `retries`: how often a retryable one is tried again."""

    def __init__(self, retries: int) -> None:
        self._retries = retries

    def segment(self, image: ImageInput | None = None, **said: Unpack[SegmentOptions]) -> Segmentation:
        """Boxes, points or earlier logits on one image -> masks, in pixels of that image."""
        return self._call(calls.segment(image, **said))

    def encode_image(self, image: ImageInput, **said: Unpack[ViewOptions]) -> ImageHandle:
        """Encode ahead; give the handle as `image` later."""
        return self._call(calls.encode_image(image, **said))

    def image(self, image_id: str, **said: Unpack[Options]) -> ImageHandle:
        """What is known of a handle."""
        return self._call(calls.image(image_id, drop=False, **said))

    def forget_image(self, image_id: str, **said: Unpack[Options]) -> ImageHandle:
        """Drop a handle and its Features."""
        return self._call(calls.image(image_id, drop=True, **said))

    def classify(
        self, images: ImageInput | Sequence[ImageInput], labels: Sequence[str], **said: Unpack[ClassifyOptions]
    ) -> Classification:
        """Scores (images, labels)."""
        return self._call(calls.classify(images, labels, **said))

    def embed(
        self, images: ImageInput | Sequence[ImageInput] = (), texts: Sequence[str] = (), **said: Unpack[ViewOptions]
    ) -> Embeddings:
        """Vectors of images or of texts."""
        return self._call(calls.embed(images, texts, **said))

    def segment_volume(
        self, volume: VolumeInput, *, progress: OnProgress | None = None, **said: Unpack[VolumeOptions]
    ) -> VolumeSegmentation:
        """Objects in a volume -> their masks on every slice. `progress` is told each step and slice; what it raises cancels it.

        A lost connection is taken up again by the job's id. The result is forgotten on the server once it is here.
        """
        call = volumes.call(volume, dict(said))
        stream = Stream(progress, call.body.get("axis", 2))
        try:
            found = self._followed(call, stream)
        except BaseException:
            self._forget(stream)
            raise
        self._forget(stream)
        return found

    def _followed(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        while True:
            try:
                return self._volume(call, stream)
            except MedserveError as error:
                if not stream.may_resume(error):
                    raise
                time.sleep(volumes.RESUME_S)

    def _forget(self, stream: Stream) -> None:
        if stream.job:
            with suppress(MedserveError):
                self._delete_volume(stream.job, {})

    @abstractmethod
    def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        """One stream: begun, or taken up where it was."""

    @abstractmethod
    def _delete_volume(self, job: str, options: Options) -> None: ...

    @abstractmethod
    def models(self) -> tuple[Model, ...]:
        """What is served."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether the server takes work. False, and no exception, where nobody answers."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    def _once(self, call: Call[R]) -> R: ...

    def _call(self, call: Call[R]) -> R:
        for attempt in range(self._retries):
            try:
                return self._once(call)
            except MedserveError as error:
                if not error.retryable:
                    raise
                time.sleep(error.wait_s(attempt))
        return self._once(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(Methods):
    """Over HTTP. `timeout_s`: longest wait for an answer where a call names no deadline."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout_s: float = 60.0, retries: int = 0
    ) -> None:
        super().__init__(retries)
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=http_wire.authorization(token))

    def models(self) -> tuple[Model, ...]:
        """What is served."""
        return http_wire.models(self._send(self._http.build_request("GET", "/v1/models")))

    def ready(self) -> bool:
        """Whether the server takes work."""
        try:
            return self._send(self._http.build_request("GET", "/readyz")).status_code == 200
        except MedserveError:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        if not stream.done:
            self._events(call, stream)
        response = self._send(self._http.build_request("GET", stream.done["result"]))
        return http_wire.volume_result(call, stream, response)

    def _events(self, call: VolumeCall, stream: Stream) -> None:
        asked = http_wire.volume_request(self._http, call, stream)
        with http_wire.answered(self._url), closing(self._http.send(asked, stream=True)) as response:
            if not response.is_success:
                response.read()
                http_wire.checked(response)
            for line in response.iter_lines():
                stream.feed(json.loads(line))
        if not stream.done:
            raise unreachable(self._url)

    def _delete_volume(self, job: str, options: Options) -> None:
        http_wire.checked(self._send(self._http.build_request("DELETE", f"/v1/volumes/{job}")))

    def _once(self, call: Call[R]) -> R:
        return http_wire.result(call, self._send(http_wire.request(self._http, call)))

    def _send(self, request: httpx.Request) -> httpx.Response:
        with http_wire.answered(self._url):
            return self._http.send(request)


class GrpcClient(Methods):
    """Over gRPC."""

    def __init__(
        self, address: str = "127.0.0.1:9000", *, token: str | None = None, timeout_s: float = 60.0, retries: int = 0
    ) -> None:
        super().__init__(retries)
        self._address = address
        self._token = token
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=grpc_wire.CHANNEL_OPTIONS)

    def models(self) -> tuple[Model, ...]:
        """What is served."""
        given: Any = self._rpc(f"/{grpc_wire.SERVICE}/ListModels", pb.ListModelsRequest(), pb.ListModelsResponse.FromString, {})
        return grpc_wire.models(given)

    def ready(self) -> bool:
        """Whether the server takes work: the standard health check, whose answer 1 is SERVING."""
        try:
            return bool(self._rpc(grpc_wire.HEALTH, b"", bytes, {}) == grpc_wire.IS_SERVING)
        except MedserveError:
            return False

    def session(self, **options: Unpack[Options]) -> Session:
        """A stream: show an image, then put prompts to it. Use it in a with block."""
        metadata = grpc_wire.metadata(options, self._token)
        return Session(self._channel, self._address, metadata, options.get("model") or "", options.get("deadline_s"))

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()

    def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        path, asked = grpc_volumes.rpc(call, stream)
        method = self._channel.unary_stream(path, grpc_wire.serialise, pb.VolumeEvent.FromString)
        pieces: list[bytes] = []
        metadata = grpc_wire.metadata(call.options, self._token)
        with grpc_wire.answered(self._address):
            for event in method(asked, timeout=call.options.get("deadline_s"), metadata=metadata):
                grpc_volumes.take(event, stream, pieces)
        return grpc_volumes.result(stream, pieces)

    def _delete_volume(self, job: str, options: Options) -> None:
        request = pb.DeleteVolumeRequest(job=job)
        self._rpc(f"/{grpc_wire.SERVICE}/DeleteVolume", request, pb.DeleteVolumeResponse.FromString, options)

    def _once(self, call: Call[R]) -> R:
        rpc = grpc_wire.rpc(call)
        given = self._rpc(rpc.path, rpc.build(call), rpc.response.FromString, call.options)
        return grpc_wire.result(call, given)

    def _rpc(self, path: str, request: Any, read: Any, options: Options) -> Any:
        method = self._channel.unary_unary(path, grpc_wire.serialise, read)
        deadline_s, metadata = options.get("deadline_s"), grpc_wire.metadata(options, self._token)
        with grpc_wire.answered(self._address):
            return method(request, timeout=self._timeout_s if deadline_s is None else deadline_s, metadata=metadata)
