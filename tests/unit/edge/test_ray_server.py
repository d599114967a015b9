"""The handlers under Ray Serve's own gRPC server class, which swaps them, and its context, which has no deadline."""

import grpc
import pytest
from grpc_health.v1 import health_pb2

from serving.edge import grpc_server
from serving.edge.grpc import GrpcFront, add_health_servicer, add_inference_servicer
from serving.edge.proto import inference_pb2 as pb
from serving.edge.proto.inference_pb2_grpc import InferenceStub
from serving.settings import Settings
from tests.unit.edge.fakes import FakeBrain, Notes

ray_util = pytest.importorskip("ray.serve._private.grpc_util")
from ray.serve._private.proxy_request_response import gRPCStreamingType  # noqa: E402
from ray.serve.grpc_util import RayServegRPCContext  # noqa: E402


def factory(methods):
    """Handlers as Ray's replica makes them: the deployment's method by the RPC's name, with Ray's context."""

    def make(service_method, streaming_type):
        method = getattr(methods, service_method.split("/")[-1])

        async def unary(request, context):
            ray_context = RayServegRPCContext(context)
            made = await method(request, ray_context)
            ray_context._set_on_grpc_context(context)
            return made.SerializeToString()

        async def stream(request, context):
            ray_context = RayServegRPCContext(context)
            async for made in method(request, ray_context):
                yield made.SerializeToString()
            ray_context._set_on_grpc_context(context)

        return unary if streaming_type in (gRPCStreamingType.UNARY_UNARY, gRPCStreamingType.STREAM_UNARY) else stream

    return make


@pytest.fixture
async def front():
    brain = FakeBrain()
    methods = grpc_server.servicer(GrpcFront(brain, Settings(), observer=Notes()))
    server = ray_util.gRPCGenericServer(factory(methods))
    add_inference_servicer(methods, server)
    add_health_servicer(methods, server)
    ray_util.enable_server_reflection(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield brain, channel
    await server.stop(0)


async def test_the_deadline_and_the_metadata_get_through(front):
    brain, channel = front
    call = InferenceStub(channel).Embed(pb.EmbedRequest(texts=["a"]), timeout=3, metadata=[("x-request-id", "me")])
    assert (await call).dimensions == 8
    assert 2 < brain.seen[0].deadline.remaining_s() < 3.5  # gRPC rounds a timeout up
    trailing = dict(await call.trailing_metadata())
    assert (trailing["x-request-id"], "total;dur=" in trailing["server-timing"]) == ("me", True)


async def test_a_malformed_message_is_ours_to_refuse(front):
    _, channel = front
    with pytest.raises(grpc.RpcError) as caught:
        await channel.unary_unary("/medserve.v1.Inference/Segment")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert dict(caught.value.trailing_metadata())["x-error-code"] == "malformed"


async def test_sessions_and_health(front):
    _, channel = front
    message = pb.SegmentSessionRequest(id="i", image=pb.EncodeImageRequest(image=pb.Image(data=b"x")))
    answers = InferenceStub(channel).SegmentSession(iter([message]), timeout=3)
    assert [(each.id, each.WhichOneof("kind")) async for each in answers] == [("i", "image")]
    answer = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
