from pathlib import Path

from serving.local.triton import EmbeddedTriton


def options(tmp_path, traces):
    triton = EmbeddedTriton(tmp_path, (), tmp_path, start_timeout_s=1, traces=traces)
    return [each for each in triton.command(Path("tritonserver")) if each.startswith("--trace-config=")]


def test_triton_traces_where_a_collector_is_named_and_only_then(tmp_path):
    assert options(tmp_path, "") == []
    found = options(tmp_path, "http://collector:4318/")
    assert "--trace-config=opentelemetry,url=http://collector:4318/v1/traces" in found
    assert "--trace-config=mode=opentelemetry" in found
