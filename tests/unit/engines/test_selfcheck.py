import numpy as np

from serving.engines import selfcheck

INPUTS = [("image", "float32", (1, 3, 8, 8), 0.0, 1.0), ("labels", "int64", (1, 5), 0, 4)]


def outputs():
    return {"x0": np.random.default_rng(1).standard_normal((1, 64, 256)).astype(np.float32), "iou": np.float32([[0.9, 0.2]])}


def test_both_sides_make_the_same_input(tmp_path):
    selfcheck.save(tmp_path / selfcheck.FILE, INPUTS, outputs())
    inputs, stored = selfcheck.load(tmp_path / selfcheck.FILE)
    drawn = selfcheck.draw(INPUTS)
    assert inputs.keys() == drawn.keys()
    for name, value in inputs.items():
        np.testing.assert_array_equal(value, drawn[name])
    assert inputs["image"].dtype == np.float32
    assert inputs["labels"].dtype == np.int64
    assert set(np.unique(inputs["labels"])) <= {0, 1, 2, 3}
    assert selfcheck.matches(stored, outputs())
    assert (tmp_path / selfcheck.FILE).stat().st_size < 64 * 1024


def test_rounding_is_forgiven():
    got = {name: value * np.float32(1.001) for name, value in outputs().items()}
    assert selfcheck.matches({n: selfcheck.sample(v) for n, v in outputs().items()}, got)


def test_wrong_outputs_are_noticed():
    stored = {name: selfcheck.sample(value) for name, value in outputs().items()}
    good = outputs()
    wrong = {
        "noise": good["x0"] + np.random.default_rng(2).standard_normal(good["x0"].shape).astype(np.float32) * 0.2,
        "twice": 2 * good["x0"],
        "zeros": 0 * good["x0"],
        "shuffled": good["x0"][..., ::-1],
        "another size": good["x0"][:, :7],
        "nan": np.where(good["x0"] > 3, np.nan, good["x0"]),
    }
    for name, value in wrong.items():
        assert not selfcheck.matches(stored, {**good, "x0": value}), name
    assert not selfcheck.matches(stored, {"x0": good["x0"]})
