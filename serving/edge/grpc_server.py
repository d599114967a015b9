"""The gRPC front on a plain ``grpc.aio`` server, with health and reflection: for tests and for embedding without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
from grpc_reflection.v1alpha import reflection

from serving.edge.grpc import GrpcFront
from serving.edge.grpc_handlers import HEALTH, INFERENCE, add_health_servicer, add_inference_servicer

CAP_BYTES = 256 * 1024 * 1024
"""Messages above this are refused by gRPC itself; between the limit in the settings and this, by an error of ours."""


async def start(front: GrpcFront, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, int]:
    """Start a server and give it with its port. The caller stops it."""
    options = (("grpc.max_receive_message_length", CAP_BYTES), ("grpc.max_send_message_length", CAP_BYTES))
    server = grpc.aio.server(options=options)
    add_inference_servicer(servicer(front), server)
    add_health_servicer(servicer(front), server)
    reflection.enable_server_reflection((INFERENCE, HEALTH, reflection.SERVICE_NAME), server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, port


def servicer(front: GrpcFront) -> SimpleNamespace:
    """The front's methods by the names of the RPCs."""
    return SimpleNamespace(
        Infer=front.infer,
        Segment=front.segment,
        SegmentSession=front.segment_session,
        EncodeImage=front.encode_image,
        GetImage=front.get_image,
        DeleteImage=front.delete_image,
        Classify=front.classify,
        Embed=front.embed,
        SegmentVolume=front.volumes.segment,
        FollowVolume=front.volumes.follow,
        DeleteVolume=front.volumes.delete,
        ListModels=front.list_models,
        Check=front.check,
        Watch=front.watch,
    )
