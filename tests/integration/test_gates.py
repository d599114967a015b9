"""What the running server says of its engines: the gate that each passed at its build, and its self-check at this start."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.integration


def test_every_engine_shows_its_gate_over_both_fronts(client):
    models = {model.name: model for model in client.models()}
    gates = models["litemedsam"].gates
    assert {name.partition("/")[0] for name in gates} == {
        "litemedsam_image_encoder", "litemedsam_mask_decoder", "litemedsam_mask_refiner",
    }  # fmt: skip
    for model in models.values():
        assert model.gates.keys() == model.engines.keys()
        assert all(gate["passed"] for gate in model.gates.values())
    for part in ("image_encoder", "mask_decoder"):
        gate = gates[f"litemedsam_{part}/1"]
        assert gate["kind"] == "mask_iou"
        assert gate["prompts"] >= 100
        assert gate["mean"] >= 0.99
        assert gate["min"] >= 0.95
        assert all(dropped["why"] for dropped in gate["dropped"].values())


def test_every_engine_passed_its_self_check(server):
    text = httpx.get(f"{server.http_url}/metrics").text
    found = {
        (sample.labels["model"], sample.labels["engine"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "medserve_selfcheck_ok"
    }
    assert {engine for model, engine in found if model == "litemedsam"} == {
        "litemedsam_image_encoder", "litemedsam_mask_decoder", "litemedsam_mask_refiner",
    }  # fmt: skip
    assert set(found.values()) == {1.0}
    assert httpx.get(f"{server.http_url}/readyz").json()["ready"] is True
