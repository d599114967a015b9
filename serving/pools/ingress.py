"""The Ray Serve shell of the router: one deployment that answers HTTP (ASGI) and gRPC with one brain."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from serving.edge.fronts import Fronts
from serving.pools import priority

OpenFronts = Callable[[dict[str, DeploymentHandle[Any]]], Awaitable[Fronts]]


@serve.deployment
@serve.ingress()
class Ingress:
    """A shell: Ray calls the methods below by the names of the RPCs, and `__serve_build_asgi_app__` once for HTTP."""

    async def __init__(self, open_fronts: OpenFronts, **pools: DeploymentHandle[Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        self._fronts = await open_fronts(pools)
        self._grpc = self._fronts.grpc
        priority.ready()

    def __serve_build_asgi_app__(self) -> Any:
        """The ASGI application of the HTTP front."""
        return self._fronts.http

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """What Ray Serve changes in place, without a restart: the weights of the models' versions."""
        self._fronts.weigh(user_config.get("versions", {}))

    async def Infer(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.infer(request, grpc_context)

    async def Segment(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.segment(request, grpc_context)

    async def SegmentSession(self, request: Any, grpc_context: Any) -> AsyncIterator[Any]:
        """See `GrpcFront`."""
        async for answer in self._grpc.segment_session(request, grpc_context):
            yield answer

    async def EncodeImage(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.encode_image(request, grpc_context)

    async def GetImage(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.get_image(request, grpc_context)

    async def DeleteImage(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.delete_image(request, grpc_context)

    async def Classify(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.classify(request, grpc_context)

    async def Embed(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.embed(request, grpc_context)

    async def SegmentVolume(self, request: bytes, grpc_context: Any) -> AsyncGenerator[Any, None]:
        """See `GrpcVolumes`."""
        async with aclosing(self._grpc.volumes.segment(request, grpc_context)) as events:
            async for event in events:
                yield event

    async def FollowVolume(self, request: bytes, grpc_context: Any) -> AsyncGenerator[Any, None]:
        """See `GrpcVolumes`."""
        async with aclosing(self._grpc.volumes.follow(request, grpc_context)) as events:
            async for event in events:
                yield event

    async def DeleteVolume(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcVolumes`."""
        return await self._grpc.volumes.delete(request, grpc_context)

    async def ListModels(self, request: bytes, grpc_context: Any) -> Any:
        """See `GrpcFront`."""
        return await self._grpc.list_models(request, grpc_context)

    async def Check(self, request: bytes, grpc_context: Any) -> Any:
        """grpc.health.v1: SERVING or NOT_SERVING."""
        return await self._grpc.check(request, grpc_context)

    async def Watch(self, request: bytes, grpc_context: Any) -> AsyncIterator[Any]:
        """grpc.health.v1: the state, and again whenever it changes."""
        async for answer in self._grpc.watch(request, grpc_context):
            yield answer
