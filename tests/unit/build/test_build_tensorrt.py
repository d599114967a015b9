"""`models build --profile tensorrt` of the shipped towers: the gate's say, the cache, and the record."""

import json

import checkpoints
import pytest
import torch

from serving.build import build_tensorrt, deploy_plans, gate, plans, tensorrt, weights
from serving.build.build import prepare
from serving.build.export import Part
from serving.build.parts import Parts
from serving.errors import SetupError
from serving.manifest import read_all
from serving.settings import CHECKOUT

NAME = "synthetic-cxr"


@pytest.fixture(scope="module")
def once():
    """What exporting gave the first time."""
    return {}


@pytest.fixture
def build(tmp_path, once, monkeypatch):
    """Builds into a home and a repository of its own; gives the plans by part and the lines that were said."""
    export = build_tensorrt.exported

    def exported(parts, say):
        if not once:
            once.update((checkpoints.built(NAME) or ({}, export(parts, say)))[1])
        return once.items()

    monkeypatch.setattr(build_tensorrt, "exported", exported)
    repository = tmp_path / "repository"
    repository.mkdir()

    def build(**chosen):
        said = []
        choices, sources = prepare(NAME, tmp_path, (), "", said.append)
        made = build_tensorrt.build_plans(choices, sources, tmp_path, repository, stem=NAME, say=said.append, **chosen)
        return {plan.record["part"]: plan for plan in made}, said

    build.repository, build.home = repository, tmp_path
    return build


def test_towers_pass_at_bf16_and_are_kept(build):
    made, _ = build()
    image = made["image_encoder"].record
    assert {plan.record["precision"] for plan in made.values()} == {"bf16"}
    assert (image["gate"]["kind"], image["gate"]["passed"], image["gate"]["where"]) == (
        "embedding",
        True,
        "emulated on the CPU",
    )
    assert image["gate"]["items"] >= gate.EMBEDDINGS
    assert (image["executed"], image["deployed"]) == (False, False)
    assert image["profile"]["pixels"] == [[1, 3, 128, 128], [16, 3, 128, 128], [32, 3, 128, 128]]
    for plan in made.values():
        assert json.loads((plan.folder / plans.RECORD).read_text()) == plan.record
        assert (plan.folder / plans.PLAN).stat().st_size == plan.record["bytes"]
        config = f"{plan.record['engine']}/config.pbtxt"
        assert (build.repository / config).read_text() == (CHECKOUT / "model_repository" / config).read_text()
    assert not list(build.repository.glob("*.json")), "what is served stays as it was"
    again, said = build()
    assert all(plan.reused for plan in again.values())
    assert sum("is in the engine cache" in line for line in said) == 2


def test_an_engine_that_fails_the_gate_stays_f32_or_is_refused_where_bf16_was_asked_for(build, monkeypatch):
    monkeypatch.setattr(gate, "COSINE_OTHERWISE", 1.1)
    made, said = build(batch=2)
    assert {plan.record["precision"] for plan in made.values()} == {"f32"}
    assert made["image_encoder"].record["gate"]["failed"]["bf16"]["passed"] is False
    assert made["image_encoder"].record["profile"]["pixels"][-1][0] == 2
    assert sum("fails the gate" in line for line in said) == 4  # at both levels
    with pytest.raises(SetupError, match="fails the precision gate at bf16"):
        build(precision="bf16")


def test_what_does_not_build_at_bf16_is_built_at_f32(build, monkeypatch):
    working = tensorrt.build

    def picky(builder, graph, spec, shapes=None):
        if b"_as_bf16" in graph:
            raise SetupError("no kernel")
        return working(builder, graph, spec, shapes)

    monkeypatch.setattr(tensorrt, "build", picky)
    made, said = build(batch=3)
    assert {plan.record["precision"] for plan in made.values()} == {"f32"}
    assert made["text_encoder"].record["gate"]["failed"]["bf16"]["built"] is False
    assert sum("no kernel: it stays f32" in line for line in said) == 2
    with pytest.raises(SetupError, match="no kernel"):
        build(batch=3, precision="bf16")


def test_an_unknown_precision_is_refused(build):
    with pytest.raises(SetupError, match="precision fp8 is not known"):
        build(precision="fp8")


def test_a_graph_above_protobuf_s_limit_is_refused(monkeypatch):
    """ViT-H's image encoder has 2.5 GB; here the limit is lowered instead."""
    part = Part(torch.nn.Linear(30, 20), {"input": torch.rand(2, 30)}, {"input": {0: "b"}}, ("y",), "openvino")
    monkeypatch.setattr(build_tensorrt, "MESSAGE_BYTES", 1000)
    with pytest.raises(SetupError, match=r"image_encoder has 0\.0 GB at float32: graphs above 2 GiB"):
        next(build_tensorrt.exported(Parts({"image_encoder": part}, {}, {}), print))


def test_plans_of_the_data_centre_package_are_deployed_with_a_record(build, monkeypatch):
    """TensorRT-RTX in its place: what is tried is where the plans go, not the package."""
    rtx = tensorrt.installed(("tensorrt_rtx",))
    monkeypatch.setattr(tensorrt, "installed", lambda: tensorrt.Builder("tensorrt", "10.13.3.9", rtx.api))
    monkeypatch.setattr(tensorrt, "gpu", lambda: "9.0")
    made, _ = build(precision="f32")
    assert all(plan.record["deployed"] and not plan.record["executed"] for plan in made.values())
    assert {plan.record["capability"] for plan in made.values()} == {"9.0"}
    served = read_all(build.repository)
    assert [manifest.model for manifest in served] == ["synthetic-cxr-chexzero", "synthetic-cxr-clip"]
    for manifest in served:
        for part, (record,) in manifest.engines.items():
            assert record.features == "region"
            plan = build.repository / record.name / record.version / plans.PLAN
            assert weights.digest(plan) == record.digest == made[part].record["digest"]
        assert manifest.options["embed_dim"] == 128


def test_plans_that_may_not_be_served_are_not(build, monkeypatch):
    made, _ = build(precision="f32")
    choices, sources = prepare(NAME, build.home, (), "", print)
    folders = [plan.folder for plan in made.values()]

    def deploy():
        return deploy_plans.deploy(folders, choices.entry, sources, {}, NAME, build.repository)

    with pytest.raises(SetupError, match="Triton takes those of the package tensorrt"):
        deploy()
    for folder in folders:
        plans.note(folder, builder="tensorrt-10.13", precision="bf16", gate={"passed": False})
    with pytest.raises(SetupError, match="has not passed the precision gate"):
        deploy()
    (folders[0] / plans.PLAN).write_bytes(b"damaged")
    with pytest.raises(SetupError, match="is damaged"):
        deploy()
    assert not list(build.repository.rglob("*.plan")) + list(build.repository.glob("*.json"))
