import itertools

from serving.domain.image import EncodedImage, ImageHandle, PercentileWindow, RawLayout, View
from serving.embeddings.keys import features_key, handle_of


def test_every_part_of_the_key_counts():
    parts = ("tenant", "digest", "preprocessing", "content")
    keys = {features_key(*parts)}
    for place in range(4):
        changed = [part + "x" if index == place else part for index, part in enumerate(parts)]
        keys.add(features_key(*changed))
    assert len(keys) == 5
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in keys)


def test_parts_do_not_run_into_each_other():
    assert features_key("a", "bc", "d", "e") != features_key("ab", "c", "d", "e")
    assert features_key('a","b', "c", "d", "e") != features_key("a", 'b","c', "d", "e")


def test_pixels_layout_index_and_window_make_different_features():
    views = (View(), View(index=1), View(index=1, axis=0), View(window=PercentileWindow(1, 99)))
    layouts = (None, RawLayout("uint8", (2, 2)), RawLayout("uint16", (1, 2)))
    images = [EncodedImage(data, "", raw, view) for data, raw, view in itertools.product((b"abcd", b"abce"), layouts, views)]
    assert len({features_key("t", "m", "p", image.content_key()) for image in images}) == len(images)


def test_the_router_reads_the_affinity_off_the_handle():
    image = EncodedImage(b"abcd")
    content, key = image.content_key(), features_key("t", "m", "p", image.content_key())
    handle = ImageHandle(handle_of(content, key))
    assert handle.id == f"{content[:32]}.{key[:32]}"
    assert content.startswith(handle.affinity)
    assert len(handle.affinity) == 32
