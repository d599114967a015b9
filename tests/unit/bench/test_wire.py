import asyncio
import json

import pytest

from serving.bench import asking, wire
from serving.bench.asking import Ask, Said
from serving.bench.pictures import Picture
from serving.bench.wire import HttpLine, Reply, ResponseReader
from serving.edge.proto import inference_pb2 as pb

PLAIN = b"HTTP/1.1 200 OK\r\nServer-Timing: encode;dur=3.5, total;dur=4\r\nX-Features: hit\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_answers_are_read_in_any_pieces(step):
    reader, found = ResponseReader(), []
    for data in (PLAIN, CHUNKED, PLAIN):
        for place in range(0, len(data), step):
            reply = reader.feed(data[place : place + step])
            if reply is not None:
                found.append(reply)
    assert [(reply.status, reply.body) for reply in found] == [(200, b"{}"), (503, b"abcde"), (200, b"{}")]
    assert found[0].stages_ms == {"encode": 3.5, "total": 4.0}
    assert found[0].features == "hit"
    assert found[0].header(b"absent") == ""


def test_what_is_not_http_is_said_so():
    with pytest.raises(ValueError, match="not an HTTP answer"):
        ResponseReader().feed(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_server_timing_without_durations_is_left_out():
    assert wire.server_timing('cache;desc="hit", db;dur=1.5;desc=x, ,odd;dur=much') == {"db": 1.5}


def test_run_lengths_are_found_in_json_and_unescaped():
    counts = "abc\\def0"
    body = json.dumps({"masks": [{"format": "rle", "counts": counts}]}, separators=(",", ":")).encode()
    assert Reply(200, b"", body).counts() == counts.encode()
    message = pb.SegmentResponse(masks=[pb.Mask(data=counts.encode())])
    assert Reply(200, b"", b"", message).counts() == counts.encode()
    assert Reply(200, b"", b"{}").counts() == b""


def test_a_prompt_is_the_same_over_both_fronts():
    prompt = Picture(3).prompts[2]
    ask = asking.by_handle("h", prompt, Said(1500, "bulk"))
    message = pb.SegmentRequest.FromString(ask.message)
    body = json.loads(ask.body)
    assert body["image_id"] == message.image.image_id == "h"
    box = message.objects[0].box
    assert tuple(body["boxes"][0]) == (box.x0, box.y0, box.x1, box.y1)
    assert len(body["points"]) == len(message.objects[0].points) == 2
    assert ask.plain() == (
        "/v1/segment",
        {"Content-Type": "application/json", "x-deadline-ms": "1500", "x-priority": "bulk"},
    )
    assert ("x-priority", "bulk") in ask.metadata


async def serve(behaviour):
    server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
    return server, HttpLine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


ASK = Ask("x", asking.head("/v1/x", b"application/json", 2), b"{}")


async def test_a_connection_is_kept_and_opened_anew_when_it_was_closed():
    connections = 0

    async def behaviour(reader, writer):
        nonlocal connections
        connections += 1
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Content-Length: 2" in head
            assert await reader.readexactly(2) == b"{}"
            writer.write(PLAIN)
        writer.close()

    server, line = await serve(behaviour)
    async with server:
        assert [(await line.call(ASK)).status for _ in range(2)] == [200, 200]
        await asyncio.sleep(0.05)
        assert (await line.call(ASK)).status == 200
        await line.close()
    assert connections == 2


async def test_a_connection_that_dies_is_no_answer():
    async def behaviour(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(PLAIN[:30])
        writer.close()

    server, line = await serve(behaviour)
    async with server:
        with pytest.raises(ConnectionError):
            await line.call(ASK)


async def test_nobody_there_is_an_os_error():
    with pytest.raises(OSError, match="Connect"):
        await HttpLine("http://127.0.0.1:9").call(ASK)
