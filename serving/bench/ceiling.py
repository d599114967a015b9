"""`python -m serving.bench.ceiling`: what the image encoder reaches of this processor's float32 arithmetic.

The multiply-adds of the stock LiteMedSAM encoder, counted in its ONNX graph (convolutions and matrix products, nothing else),
over the time that ONNX Runtime takes for it, beside the rate of one large matrix product on the same cores, in turn. Their
ratio bounds what any engine could gain in float32 without doing less arithmetic.
"""

from __future__ import annotations

import time
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from serving.bench import bare, stock
from serving.settings import load

SIDE = 2048
ROUNDS = 9


def multiply_adds(file: Path) -> int:
    """Of one image: each convolution's and each matrix product's."""
    import onnx
    from onnx.shape_inference import infer_shapes

    model = onnx.load(file)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph = infer_shapes(model, data_prop=True).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for each in (*graph.value_info, *graph.input, *graph.output):
        shapes.setdefault(each.name, tuple(max(dim.dim_value, 1) for dim in each.type.tensor_type.shape.dim))
    return sum(_of_node(node, shapes) for node in graph.node)


def _of_node(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0


def main() -> None:
    """Prints the count, both rates in multiply-adds a second, and their ratio."""
    home = load().home
    file = stock.export(home / "bench" / "stock", home, print) / stock.FILES[0]
    count = multiply_adds(file)
    engine = bare.OnnxRuntime(file, bare.cores())
    draw = np.random.default_rng(0)
    image = {"image": draw.uniform(0, 1, (1, 3, 256, 256)).astype(np.float32)}
    left, right = (draw.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    encodes, products = list[float](), list[float]()
    for _ in range(ROUNDS + 1):
        for spent, work in ((encodes, lambda: engine.infer(image)), (products, lambda: left @ right)):
            start = time.perf_counter()
            work()
            spent.append(time.perf_counter() - start)
    reached, peak = count / median(encodes[1:]), SIDE**3 / median(products[1:])
    print(f"{count / 1e9:.1f} G multiply-adds an image, {1000 * median(encodes[1:]):.0f} ms")
    print(f"{reached / 1e9:.1f} of {peak / 1e9:.1f} G/s in a product of {SIDE} x {SIDE}: at most {peak / reached:.2f} x faster")


if __name__ == "__main__":
    main()
