"""The visual half over the running server: quality, exactness, sizes, and what a session keeps."""

import numpy as np
import pytest
from brain1 import IMAGE, WINDOW, cases, dice
from pictures import png

from serving.client import AsyncClient, AsyncGrpcClient, Client, GrpcClient, MedserveError

pytestmark = pytest.mark.integration


def picture(seed, side=512):
    """A smooth random picture with a bright disc in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    disc = np.hypot(x - side / 2, y - side / 2) < side / 5
    return (60 + 90 * disc + rng.normal(0, 8, (side, side))).clip(0, 255).astype(np.uint8)


def test_brain1_is_segmented_as_well_as_upstream_does(client):
    scores = []
    for index, label, box in cases():
        found = client.segment(IMAGE, boxes=[box], index=index, window=WINDOW, model="litemedsam")
        scores.append(dice(found.masks[0].array, label))
    assert len(scores) == 7
    assert np.mean(scores) >= 0.878


def test_both_fronts_give_one_mask(server):
    index, _, box = cases()[0]
    said = {"boxes": [box], "index": index, "window": WINDOW}
    with Client(server.http_url) as http, GrpcClient(server.grpc_address) as grpc:
        first, second = http.segment(IMAGE, **said), grpc.segment(IMAGE, **said)
    assert np.array_equal(first.masks[0].array, second.masks[0].array)
    assert first.masks[0].score == pytest.approx(second.masks[0].score, abs=1e-6)
    assert first.image_id == second.image_id
    assert second.features == "hit"


def test_a_further_prompt_needs_no_image(client):
    handle = client.encode_image(png(picture(1)))
    by_handle = client.segment(handle, boxes=[(150, 150, 362, 362)])
    by_bytes = client.segment(png(picture(1)), boxes=[(150, 150, 362, 362)])
    assert by_handle.features == by_bytes.features == "hit"
    assert np.array_equal(by_handle.masks[0].array, by_bytes.masks[0].array)
    client.forget_image(handle.image_id)
    with pytest.raises(MedserveError) as caught:
        client.segment(handle, boxes=[(150, 150, 362, 362)])
    assert caught.value.code == "send_image_again"


def test_objects_of_one_call_are_those_of_single_calls(client):
    boxes = [(150, 150, 362, 362), (10, 10, 100, 100), (200, 200, 300, 300)]
    image = png(picture(2))
    together = client.segment(image, boxes=boxes).masks
    for box, mask in zip(boxes, together, strict=True):
        alone = client.segment(image, boxes=[box]).masks[0]
        assert (alone.array != mask.array).mean() <= 1e-4
        assert alone.score == pytest.approx(mask.score, abs=1e-4)


def test_points_and_earlier_logits_change_the_answer(client):
    # LiteMedSAM was trained with boxes: points say more about a box's object.
    image, box = png(picture(3)), [(150, 150, 362, 362)]
    first = client.segment(image, boxes=box, return_logits=True)
    pointed = client.segment(image, boxes=box, points=[(256, 256, 1), (160, 160, 0)])
    again = client.segment(image, boxes=box, mask=first.masks[0].logits)
    assert first.masks[0].logits.shape == (256, 256)
    assert dice(first.masks[0].array, pointed.masks[0].array) > 0.8
    assert dice(first.masks[0].array, again.masks[0].array) > 0.8
    assert first.masks[0].score != pointed.masks[0].score != again.masks[0].score
    assert len(client.segment(image, boxes=box, multimask=True).masks) == 3


@pytest.mark.parametrize("output", ["rle", "png", "packed"])
def test_outputs_hold_the_same_mask(client, output):
    image, box = png(picture(4)), (150, 150, 362, 362)
    assert np.array_equal(
        client.segment(image, boxes=[box], output=output).masks[0].array, client.segment(image, boxes=[box]).masks[0].array
    )


def test_a_mask_of_a_megapixel_leaves_in_ten_kilobytes(client):
    found = client.segment(png(picture(5, 1024)), boxes=[(300, 300, 724, 724)])
    assert found.masks[0].size == (1024, 1024)
    assert found.masks[0].area_px > 100_000
    assert len(found.masks[0].data) <= 10_000


def test_a_session_keeps_its_image(server):
    with GrpcClient(server.grpc_address) as client, client.session() as session:
        session.show(png(picture(6)))
        first = session.segment(boxes=[(150, 150, 362, 362)])
        second = session.segment(boxes=[(150, 150, 362, 362)], points=[(256, 256, 1)])
    assert second.features == "hit"
    assert first.masks[0].area_px > 10_000


async def test_the_async_clients_agree(server):
    image, box = png(picture(7)), (150, 150, 362, 362)
    async with AsyncClient(server.http_url) as http, AsyncGrpcClient(server.grpc_address) as grpc:
        one, other = await http.segment(image, boxes=[box]), await grpc.segment(image, boxes=[box])
    assert np.array_equal(one.masks[0].array, other.masks[0].array)
