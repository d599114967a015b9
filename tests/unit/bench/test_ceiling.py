"""The multiply-adds of a small graph, counted by hand."""

from math import prod

from onnx import TensorProto, helper, save

from serving.bench.ceiling import multiply_adds


def test_convolutions_and_products_are_counted_and_nothing_else(tmp_path):
    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def weights(name, *shape):
        return helper.make_tensor(name, TensorProto.FLOAT, shape, bytes(4 * prod(shape)), raw=True)

    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["grid"], strides=[2, 2], group=2),
        helper.make_node("Relu", ["grid"], ["kept"]),
        helper.make_node("MatMul", ["kept", "right"], ["made"]),
    ]
    graph = helper.make_graph(
        nodes, "small", [tensor("image", "batch", 4, 6, 6)], [tensor("made", "batch", 8, 3, 5)],
        [weights("kernel", 8, 2, 2, 2), weights("right", 3, 5)],
    )  # fmt: skip
    save(helper.make_model(graph), tmp_path / "small.onnx")
    convolution = 8 * 3 * 3 * (2 * 2 * 2)
    product = 8 * 3 * 5 * 3
    assert multiply_adds(tmp_path / "small.onnx") == convolution + product
