"""The asyncio clients: `AsyncClient` over HTTP, `AsyncGrpcClient` over gRPC. Both have the methods of `AsyncMethods`."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any, Self, Unpack

import grpc
import httpx

from serving.client import calls, grpc_volumes, grpc_wire, http_wire, volumes
from serving.client.calls import Call, ClassifyOptions, ImageInput, Options, R, SegmentOptions, ViewOptions
from serving.client.fault import MedserveError, unreachable
from serving.client.results import Classification, Embeddings, ImageHandle, Model, Segmentation, VolumeSegmentation
from serving.client.volumes import OnProgress, Stream, VolumeCall, VolumeInput, VolumeOptions
from serving.edge.proto import inference_pb2 as pb


class AsyncMethods(ABC):
    """What a client can do. Every method raises MedserveError; `retries`: how often a retryable one is tried again."""

    def __init__(self, retries: int) -> None:
        self._retries = retries

    async def segment(self, image: ImageInput | None = None, **said: Unpack[SegmentOptions]) -> Segmentation:
        """Boxes, points or earlier logits on one image -> masks, in pixels of that image."""
        return await self._call(calls.segment(image, **said))

    async def encode_image(self, image: ImageInput, **said: Unpack[ViewOptions]) -> ImageHandle:
        """Encode ahead; give the handle as `image` later."""
        return await self._call(calls.encode_image(image, **said))

    async def image(self, image_id: str, **said: Unpack[Options]) -> ImageHandle:
        """What is known of a handle."""
        return await self._call(calls.image(image_id, drop=False, **said))

    async def forget_image(self, image_id: str, **said: Unpack[Options]) -> ImageHandle:
        """Drop a handle and its Features."""
        return await self._call(calls.image(image_id, drop=True, **said))

    async def classify(
        self, images: ImageInput | Sequence[ImageInput], labels: Sequence[str], **said: Unpack[ClassifyOptions]
    ) -> Classification:
        """Scores (images, labels)."""
        return await self._call(calls.classify(images, labels, **said))

    async def embed(
        self, images: ImageInput | Sequence[ImageInput] = (), texts: Sequence[str] = (), **said: Unpack[ViewOptions]
    ) -> Embeddings:
        """Vectors of images or of texts."""
        return await self._call(calls.embed(images, texts, **said))

    async def segment_volume(
        self, volume: VolumeInput, *, progress: OnProgress | None = None, **said: Unpack[VolumeOptions]
    ) -> VolumeSegmentation:
        """Objects in a volume -> their masks on every slice. `progress` is told each step and slice; what it raises cancels it.

        A lost connection is taken up again by the job's id. The result is forgotten on the server once it is here.
        """
        call = await asyncio.to_thread(volumes.call, volume, dict(said))
        stream = Stream(progress, call.body.get("axis", 2))
        try:
            return await self._followed(call, stream)
        finally:
            if stream.job:
                with suppress(MedserveError):
                    await asyncio.shield(self._delete_volume(stream.job, {}))

    async def _followed(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        while True:
            try:
                return await self._volume(call, stream)
            except MedserveError as error:
                if not stream.may_resume(error):
                    raise
                await asyncio.sleep(volumes.RESUME_S)

    @abstractmethod
    async def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        """One stream: begun, or taken up where it was."""

    @abstractmethod
    async def _delete_volume(self, job: str, options: Options) -> None: ...

    @abstractmethod
    async def models(self) -> tuple[Model, ...]:
        """What is served."""

    @abstractmethod
    async def ready(self) -> bool:
        """Whether the server takes work. False, and no exception, where nobody answers."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    @abstractmethod
    async def _once(self, call: Call[R]) -> R: ...

    async def _call(self, call: Call[R]) -> R:
        for attempt in range(self._retries):
            try:
                return await self._once(call)
            except MedserveError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(error.wait_s(attempt))
        return await self._once(call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncClient(AsyncMethods):
    """Over HTTP. `timeout_s`: longest wait for an answer where a call names no deadline."""

    def __init__(
        self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout_s: float = 60.0, retries: int = 0
    ) -> None:
        super().__init__(retries)
        self._url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout_s, headers=http_wire.authorization(token))

    async def models(self) -> tuple[Model, ...]:
        """What is served."""
        return http_wire.models(await self._send(self._http.build_request("GET", "/v1/models")))

    async def ready(self) -> bool:
        """Whether the server takes work."""
        try:
            return (await self._send(self._http.build_request("GET", "/readyz"))).status_code == 200
        except MedserveError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        if not stream.done:
            await self._events(call, stream)
        response = await self._send(self._http.build_request("GET", stream.done["result"]))
        return http_wire.volume_result(call, stream, response)

    async def _events(self, call: VolumeCall, stream: Stream) -> None:
        asked = http_wire.volume_request(self._http, call, stream)
        with http_wire.answered(self._url):
            async with aclosing(await self._http.send(asked, stream=True)) as response:
                if not response.is_success:
                    await response.aread()
                    http_wire.checked(response)
                async for line in response.aiter_lines():
                    stream.feed(json.loads(line))
        if not stream.done:
            raise unreachable(self._url)

    async def _delete_volume(self, job: str, options: Options) -> None:
        http_wire.checked(await self._send(self._http.build_request("DELETE", f"/v1/volumes/{job}")))

    async def _once(self, call: Call[R]) -> R:
        return http_wire.result(call, await self._send(http_wire.request(self._http, call)))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        with http_wire.answered(self._url):
            return await self._http.send(request)


class AsyncGrpcClient(AsyncMethods):
    """Over gRPC. Make it inside the running event loop."""

    def __init__(
        self, address: str = "127.0.0.1:9000", *, token: str | None = None, timeout_s: float = 60.0, retries: int = 0
    ) -> None:
        super().__init__(retries)
        self._address = address
        self._token = token
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(address, options=grpc_wire.CHANNEL_OPTIONS)

    async def models(self) -> tuple[Model, ...]:
        """What is served."""
        given: Any = await self._rpc(
            f"/{grpc_wire.SERVICE}/ListModels", pb.ListModelsRequest(), pb.ListModelsResponse.FromString, {}
        )
        return grpc_wire.models(given)

    async def ready(self) -> bool:
        """Whether the server takes work: the standard health check, whose answer 1 is SERVING."""
        try:
            return bool(await self._rpc(grpc_wire.HEALTH, b"", bytes, {}) == grpc_wire.IS_SERVING)
        except MedserveError:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._channel.close(None)

    async def _volume(self, call: VolumeCall, stream: Stream) -> VolumeSegmentation:
        path, asked = grpc_volumes.rpc(call, stream)
        method: Any = self._channel.unary_stream(path, grpc_wire.serialise, pb.VolumeEvent.FromString)
        pieces: list[bytes] = []
        metadata = grpc_wire.metadata(call.options, self._token)
        given = method(asked, timeout=call.options.get("deadline_s"), metadata=metadata)
        try:
            with grpc_wire.answered(self._address):
                async for event in given:
                    grpc_volumes.take(event, stream, pieces)
        finally:
            given.cancel()
        return grpc_volumes.result(stream, pieces)

    async def _delete_volume(self, job: str, options: Options) -> None:
        request = pb.DeleteVolumeRequest(job=job)
        await self._rpc(f"/{grpc_wire.SERVICE}/DeleteVolume", request, pb.DeleteVolumeResponse.FromString, options)

    async def _once(self, call: Call[R]) -> R:
        rpc = grpc_wire.rpc(call)
        given = await self._rpc(rpc.path, rpc.build(call), rpc.response.FromString, call.options)
        return grpc_wire.result(call, given)

    async def _rpc(self, path: str, request: Any, read: Any, options: Options) -> Any:
        method: Any = self._channel.unary_unary(path, grpc_wire.serialise, read)
        deadline_s, metadata = options.get("deadline_s"), grpc_wire.metadata(options, self._token)
        with grpc_wire.answered(self._address):
            return await method(request, timeout=self._timeout_s if deadline_s is None else deadline_s, metadata=metadata)
