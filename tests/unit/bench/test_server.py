import os

from serving.bench import usage
from serving.bench.server import cpu_seconds, descendants, memory_bytes, total

TEXT = """# TYPE hits_total counter
hits_total{pool="adaptive",outcome="miss"} 2.0
hits_total{pool="other",outcome="miss"} 1.0
hits_total{pool="adaptive",outcome="hit"} 5.0
hits_total_created{pool="adaptive",outcome="miss"} 9.0
plain 4
"""


def test_counters_are_summed_over_the_labels_that_are_named():
    assert total(TEXT, "hits_total", {"outcome": "miss"}) == 3
    assert total(TEXT, "hits_total", {"outcome": "miss", "pool": "adaptive"}) == 2
    assert total(TEXT, "hits_total", {}) == 8
    assert total(TEXT, "plain", {}) == 4
    assert total(TEXT, "absent", {}) == 0


def test_a_process_has_memory_and_time():
    assert os.getpid() in descendants(os.getppid())
    assert memory_bytes([os.getpid()]) > 2**20
    assert cpu_seconds([os.getpid()]) > 0
    assert memory_bytes([2**22 + 1]) == 0


def test_processes_are_told_by_what_they_do():
    stub = "/tmp/x/triton_python_backend_stub /repo/litemedsam_mask_decoder/1/model.xml medserve_1_2_triton"
    assert usage.role(stub) == "engine litemedsam_mask_decoder"
    assert usage.role("ray::ServeReplica:medserve:Ingress.handle") == "replica Ingress"
    assert usage.role("/x/bin/tritonserver --model-repository") == "tritonserver"
    assert usage.role("bash") == "other"
