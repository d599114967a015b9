"""What is no volume or no prompt for one: one line, and no job."""

import pytest

from tests.unit.edge.volumes.asking import BOX, http, jobs_of

BAD = {
    "no prompt": ({"volume": "Vg=="}, "boxes"),
    "no volume": ({"boxes": [BOX]}, "volume"),
    "an empty volume": ({"volume": "", "boxes": [BOX]}, "volume"),
    "absent slices": ({"volume": "Vg==", "boxes": [[1, 2, 1, 20, 30, 6]]}, "boxes"),
    "a negative slice": ({"volume": "Vg==", "boxes": [[1, 2, -1, 20, 30, 3]]}, "boxes[0]"),
    "half a slice": ({"volume": "Vg==", "boxes": [[1, 2, 0.5, 20, 30, 3]]}, "boxes[0]"),
    "slices upside down": ({"volume": "Vg==", "boxes": [[1, 2, 3, 20, 30, 1]]}, "boxes"),
    "a flat box and no slice": ({"volume": "Vg==", "boxes": [[1, 2, 20, 30]]}, "boxes[0]"),
    "five numbers": ({"volume": "Vg==", "boxes": [[1, 2, 3, 20, 30]]}, "boxes[0]"),
    "outside the picture": ({"volume": "Vg==", "boxes": [[1, 2, 1, 65, 30, 3]]}, "boxes"),
    "a number that is none": ({"volume": "Vg==", "boxes": [[1, 2, "x", 20, 30, 3]]}, "boxes[0]"),
    "first without last": ({"volume": "Vg==", "objects": [{"box": [1, 2, 20, 30], "slice": 1, "first": 0}]}, "objects"),
    "an extent said twice": ({"volume": "Vg==", "objects": [{"box": BOX, "first": 0, "last": 5}]}, "objects[0].first"),
    "a mask beside a box": (
        {"volume": "Vg==", "objects": [{"box": [1, 2, 3, 4], "slice": 1, "mask": {"size": [48, 64], "counts": "0"}}]},
        "objects[0].mask",
    ),
    "a mask of nothing": (
        {"volume": "Vg==", "objects": [{"slice": 1, "mask": {"size": [0, 64], "counts": "0"}}]},
        "objects[0].mask.size",
    ),
    "a label of two on a slice": (
        {"volume": "Vg==", "objects": [{"box": BOX, "label": 0}, {"box": BOX, "label": 0}]},
        "objects",
    ),
    "a label of some": ({"volume": "Vg==", "objects": [{"box": BOX, "label": 0}, {"box": BOX}]}, "objects"),
    "a label too many": ({"volume": "Vg==", "objects": [{"box": BOX, "label": 256}]}, "objects[0].label"),
    "an axis of four": ({"volume": "Vg==", "boxes": [BOX], "axis": 3}, "axis"),
    "an unknown output": ({"volume": "Vg==", "boxes": [BOX], "output": "stl"}, "output"),
    "an unknown field": ({"volume": "Vg==", "boxes": [BOX], "spacing": 1}, "spacing"),
    "a model that takes none": ({"volume": "Vg==", "boxes": [BOX], "model": "clip"}, "model"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(served, name):
    body, param = BAD[name]
    with http(served) as client:
        response = client.post("/v1/volumes/segment", json=body)
    error = response.json()["error"]
    assert 400 <= response.status_code < 500
    assert (error["param"], "\n" in error["message"]) == (param, False)
    assert jobs_of(served) == []
