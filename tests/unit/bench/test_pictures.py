from itertools import islice

import cv2
import numpy as np

from serving.bench import bare
from serving.bench.pictures import MARK_PX, PROMPTS, Picture, endless, nrrd, several
from serving.domain.image import EncodedImage, View
from serving.imaging.decode import decode
from serving.settings import LimitSettings


def test_a_seed_gives_the_same_picture_and_others_differ():
    assert np.array_equal(Picture(4).pixels, Picture(4).pixels)
    assert not np.array_equal(Picture(4).pixels, Picture(5).pixels)
    assert len({picture.png for picture in several(3)}) == 3


def test_the_file_is_the_picture():
    read = cv2.imdecode(np.frombuffer(Picture(4).png, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(read, Picture(4).pixels)


def test_endless_pictures_are_never_the_same_file_and_each_is_its_picture_but_for_the_mark():
    pictures = several(2, side_px=64)
    files = [*islice(endless(pictures), 50), *islice(endless(pictures), 50)]
    assert len(set(files)) == 100
    read = cv2.imdecode(np.frombuffer(files[2], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(read[:-1], pictures[0].pixels[:-1])
    assert np.array_equal(read[-1, MARK_PX:], pictures[0].pixels[-1, MARK_PX:])


def test_prompts_lie_in_the_picture():
    prompts = Picture(6).prompts
    assert len(prompts) == PROMPTS
    for prompt in prompts:
        x0, y0, x1, y1 = prompt.box
        assert 0 <= x0 < x1 < 512
        assert 0 <= y0 < y1 < 512
        assert all(x0 <= x <= x1 and y0 <= y <= y1 for x, y, _ in prompt.points)


def test_the_volume_is_read_as_its_slice():
    image = decode(EncodedImage(nrrd(7, 40), "", view=View(index=3)), LimitSettings())
    assert image.pixels.shape == (40, 40)
    assert 7 * 1600 < len(nrrd(7, 40)) < 7 * 1600 + 200


def test_the_bare_engines_get_what_the_server_s_get():
    from serving.families.litemedsam.preprocess import prepare

    encoded = EncodedImage(Picture(4).png, "image/png")
    theirs = prepare(decode(encoded, LimitSettings()))
    ours, content = bare.prepare(Picture(4).pixels)
    assert content == theirs.content_px
    assert np.allclose(ours, theirs.tensor, atol=1e-6)
