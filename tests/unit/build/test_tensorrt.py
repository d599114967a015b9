"""Every engine of the catalogue built with TensorRT-RTX on the CPU, and its network beside its configuration."""

from dataclasses import replace

import checkpoints
import onnx
import pytest
import tensorrt_rtx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.build import bf16, build_tensorrt, config, plans, production, published, recipes, samples, tensorrt
from serving.build.catalogue import ENTRIES
from serving.build.recipes import Choices
from serving.engines.engine import EngineSpec, TensorSpec
from serving.errors import SetupError
from serving.manifest import Manifest
from serving.settings import CHECKOUT

DTYPES = {number: name for name, number in ((k, model_config_pb2.DataType.Value(v)) for k, v in config.TYPES.items())}


@pytest.fixture(scope="module")
def builder():
    return tensorrt.installed(("tensorrt_rtx",))


EXPORTED = {}
"""(how, from what) -> (options, graphs): entries of one procedure share what is exported."""


def exported(name, checkpoint):
    """part -> (spec, ONNX at float32) of an entry with what a function gives as its checkpoint."""
    entry = ENTRIES[name]
    recipe = recipes.of(entry.models[0][1])
    same = (recipe.parts, checkpoint)
    if same not in EXPORTED:
        chosen = (entry.preprocessings or ("",))[0]
        made = recipe.parts(checkpoint(), Choices(entry, chosen, checkpoints.tokenizer(name)))
        assert {part: one.backend for part, one in made.parts.items()} == backends(made.parts), "the committed cpu.pbtxt"
        made = replace(made, parts={part: made.parts[part] for part in checkpoints.SOME.get(name, made.parts)})
        EXPORTED[same] = made.options, dict(build_tensorrt.exported(made, print))
    return with_specs(name, *EXPORTED[same])


def with_specs(name, options, graphs):
    entry = ENTRIES[name]
    family = entry.models[0][1]
    draft = Manifest(model=name, family=family, pool=entry.pool, digest="", source="", licence="", engines={}, options=options)
    specs = recipes.of(family).specs(draft)
    return {part: (specs[part], graph) for part, graph in graphs.items()}


def backends(parts):
    """What the committed configurations of the CPU say."""
    return {part: published.BACKENDS.get(part, "onnxruntime") for part in parts}


BUILT = {}
"""(graph, interface) -> (graph, its plan's bytes): all SAMs have one procedure, and here one narrow network."""


def plan_of(builder, spec, graph):
    """Bytes of the plan at bfloat16, built once for engines that differ by name alone."""
    same = (id(graph), replace(spec, name=""))
    if same not in BUILT:
        lowered = bf16.to_bf16(graph)
        assert sum(bf16.counts(lowered).get(kind, 0) for kind in ("MatMul", "Gemm", "Conv")) > 2, spec.name
        plan = tensorrt.build(builder, lowered.SerializeToString(), configured(config.tensorrt(spec)), production.profile(spec))
        BUILT[same] = graph, len(plan)
    return BUILT[same][1]


def configured(text):
    """The spec that a config.pbtxt states, Features among inputs and outputs."""
    read = text_format.Parse(text, model_config_pb2.ModelConfig())
    given, made = (
        tuple(TensorSpec(t.name, DTYPES[t.data_type], tuple(t.dims)) for t in tensors) for tensors in (read.input, read.output)
    )
    return EngineSpec(read.name, given, made, read.max_batch_size)


@pytest.fixture
def one_sample(monkeypatch):
    """Of the images on which a build is compared with PyTorch, which is not done here."""
    first = samples.radiology()[:1]
    monkeypatch.setattr(samples, "radiology", lambda: first)


@pytest.mark.usefixtures("one_sample")
@pytest.mark.parametrize("name", ENTRIES)
def test_every_engine_builds_at_bf16_with_the_interface_of_its_configuration(name, builder):
    held, seeded = checkpoints.built(name), checkpoints.checkpoint(name)
    for part, (spec, graph) in (with_specs(name, *held) if held else exported(name, seeded)).items():
        assert plan_of(builder, spec, graph) > 100_000, part
        committed = CHECKOUT / "model_repository" / spec.name / "config.pbtxt"
        written, rendered = configured(committed.read_text()), configured(config.tensorrt(spec))
        assert written.max_batch == rendered.max_batch
        for one, other in ((written.inputs, rendered.inputs), (written.outputs, rendered.outputs)):
            assert [(t.name, t.dtype, len(t.shape)) for t in one] == [(t.name, t.dtype, len(t.shape)) for t in other]


def test_clip_vit_b_32_builds_at_full_width_to_its_committed_configuration(builder):
    for spec, graph in exported("clip", checkpoints.vit_b_32).values():
        committed = configured((CHECKOUT / "model_repository" / spec.name / "config.pbtxt").read_text())
        plan = tensorrt.build(builder, bf16.to_bf16(graph).SerializeToString(), committed, production.profile(spec))
        assert len(plan) > 70_000_000


@pytest.fixture(scope="module")
def small():
    """One product: (spec, graph)."""
    weights = ", ".join(["0.5"] * 32)
    signature = f"g (float[b, 3, 8] x) => (float[b, 3, 4] y) <float[8, 4] w = {{{weights}}}>"
    graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {signature} {{ y = MatMul (x, w) }}')
    return EngineSpec("small", (TensorSpec("x", "float32", (3, 8)),), (TensorSpec("y", "float32", (3, 4)),), 4), graph


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"inputs": (TensorSpec("z", "float32", (3, 8)),)}, "has an input x that the configuration has not"),
        ({"inputs": (TensorSpec("x", "float32", (3, 9)),)}, r"input x is float32 \(-1, 3, 8\) in the graph"),
        ({"outputs": (TensorSpec("y", "int64", (3, 4)),)}, "output y is float32"),
        ({"outputs": (TensorSpec("y", "float32", (3, 4)), TensorSpec("n", "float32", (1,)))}, "has no output n"),
    ],
)
def test_a_network_of_another_interface_is_refused(builder, small, change, says):
    spec, graph = small
    other = EngineSpec(**{**vars(spec), **change})
    with pytest.raises(SetupError, match=says):
        tensorrt.build(builder, graph.SerializeToString(), other)


def test_what_does_not_parse_is_said_in_one_line(builder, small):
    spec, graph = small
    with pytest.raises(SetupError, match="does not take the graph") as refused:
        tensorrt.build(builder, graph.SerializeToString()[:40], spec)
    assert "\n" not in str(refused.value)


def test_plans_are_kept_by_what_made_them(builder, small, tmp_path):
    spec, graph = small
    made = []

    def plan(wanted, builder=builder, precision="f32", batch=0, source=graph):
        shapes = production.profile(spec, batch)
        key = plans.key(builder, spec.name, source, precision, shapes)

        def make():
            made.append(key)
            return tensorrt.build(builder, source.SerializeToString(), spec, shapes)

        return plans.cached(tmp_path, key, make, {"part": wanted})

    folder, reused = plan("first")
    assert not reused
    record = plans.read(folder)
    assert record["builder"] == builder.label == f"tensorrt-rtx-{'.'.join(tensorrt_rtx.__version__.split('.')[:2])}"
    assert record["profile"] == {"x": [[1, 3, 8], [2, 3, 8], [4, 3, 8]]}
    assert record["capability"] == "portable"
    assert plan("again") == (folder, True)
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    other.graph.node[0].doc_string = "made elsewhere"
    assert plan("remarks", source=other) == (folder, True)
    other.graph.node[0].op_type = "Sub"
    assert plans.key(builder, "small", other, "f32", {}).digest() != plans.key(builder, "small", graph, "f32", {}).digest()
    folders = {folder, plan("batch", batch=2)[0], plan("precision", precision="bf16")[0]}
    newer = tensorrt.Builder("tensorrt-rtx", "1.8.0.1", builder.api)
    folders.add(plan("version", builder=newer)[0])
    assert len(folders) == len(made) == 4
    (folder / plans.PLAN).write_bytes(b"damaged")
    assert plan("repaired") == (folder, False)


def test_a_build_that_breaks_leaves_nothing_in_the_cache(builder, small, tmp_path):
    spec, graph = small
    key = plans.key(builder, spec.name, graph, "f32", production.profile(spec))
    with pytest.raises(SetupError, match="no"):
        plans.cached(tmp_path, key, lambda: (_ for _ in ()).throw(SetupError("no")), {})
    assert not list((tmp_path / "engines").iterdir())


def test_without_a_gpu_data_centre_tensorrt_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tensorrt, "gpu", lambda: "")
    with pytest.raises(SetupError, match="builds on a GPU and none is here"):
        tensorrt.Builder("tensorrt", "10.13.3.9", None).capability()
    monkeypatch.setattr(tensorrt, "gpu", lambda: "9.0")
    assert tensorrt.Builder("tensorrt", "10.13.3.9", None).capability() == "9.0"
    with pytest.raises(SetupError, match="no TensorRT is installed"):
        tensorrt.installed(("no_such_tensorrt",))
