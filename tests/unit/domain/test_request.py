import math
import pickle
import time

import pytest

from serving.domain.image import EncodedImage, ImageHandle, View
from serving.domain.prompt import Box, Labels, ObjectPrompt
from serving.domain.request import Classify, Deadline, Embed, Lookup, Segment, images_of
from serving.errors import Fault, Kind


def test_a_deadline_crosses_processes_as_what_remains():
    deadline = pickle.loads(pickle.dumps(Deadline.after(5)))
    assert 4 < deadline.remaining_s() <= 5


def test_a_passed_deadline_names_the_stage():
    with pytest.raises(Fault, match="before the engine") as caught:
        Deadline(time.monotonic() - 1).check("the engine")
    assert caught.value.kind is Kind.DEADLINE


def test_a_deadline_must_be_finite():
    with pytest.raises(Fault):
        Deadline.after(math.nan)


def test_the_same_bytes_seen_differently_are_different_pictures():
    one, two = EncodedImage(b"x"), EncodedImage(b"x", view=View(index=1))
    assert one.sha256 == two.sha256
    assert one.content_key() != two.content_key()
    assert one.content_key() == EncodedImage(b"x", "image/png").content_key()


def test_a_task_needs_its_parts():
    with pytest.raises(Fault, match="no prompt"):
        Segment(ImageHandle("a.b"), ())
    with pytest.raises(Fault, match="either"):
        Embed()
    with pytest.raises(Fault, match="no image"):
        Classify((), Labels(("a",)))
    with pytest.raises(Fault, match="empty"):
        EncodedImage(b"")


def test_the_images_of_each_task():
    handle = ImageHandle("key.rest")
    assert images_of(Segment(handle, (ObjectPrompt(Box(0, 0, 1, 1)),))) == (handle,)
    assert images_of(Lookup(handle)) == (handle,)
    assert images_of(Embed(texts=("a",))) == ()
    assert handle.affinity == "key"
