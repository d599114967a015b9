"""Shapes of a GPU's engines from their specs."""

from serving.build import production
from serving.engines.engine import EngineSpec, TensorSpec

SPEC = EngineSpec(
    "some_decoder",
    (TensorSpec("points", "float32", (-1, -1, 2), ((1, 1, 16), (2, 2, 66))), TensorSpec("ids", "int64", (-1,))),
    (TensorSpec("mask", "float32", (-1, 8)),),
    max_batch=8,
    reads=(TensorSpec("x0", "float32", (4, 2)),),
)


def test_profiles_are_bounded_by_the_family_and_the_batch():
    assert production.profile(SPEC) == {
        "x0": ((1, 4, 2), (4, 4, 2), (8, 4, 2)),
        "points": ((1, 1, 2, 2), (4, 1, 2, 2), (8, 16, 66, 2)),
        "ids": ((1, 1), (4, 2), (8, 64)),
    }
    assert production.profile(SPEC, 2)["ids"] == ((1, 1), (1, 2), (2, 64))
    assert production.profile(SPEC, 100) == production.profile(SPEC)


def test_warm_up_and_graphs_are_of_the_usual_shapes():
    graphs, warm = "\n".join(production.cuda_graphs(SPEC)), "\n".join(production.warm_up(SPEC))
    assert graphs.count("graph_spec") == 4  # batches 1, 2, 4, 8
    assert graphs.count('input { key: "points" value { dim: [1, 2, 2] } }') == 4
    assert warm.count("model_warmup") == 2
    assert 'key: "ids" value { data_type: TYPE_INT64 dims: [2] zero_data: true }' in warm
    assert 'key: "x0" value { data_type: TYPE_FP32 dims: [4, 2] random_data: true }' in warm
