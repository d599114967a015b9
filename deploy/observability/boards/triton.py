"""Triton's own metrics."""

from __future__ import annotations

from boards.panel import Dashboard, Panel, per, ratio


def mean_us(name: str) -> str:
    """Of a request, in microseconds, as Triton counts."""
    return ratio(per(name, "model"), per("nv_inference_request_success", "model"))


TRITON = Dashboard(
    "triton",
    "medserve: Triton",
    (
        (
            "Requests",
            (
                Panel("Requests by engine", "reqps", ((per("nv_inference_request_success", "model"), "{{model}}"),)),
                Panel(
                    "Failures by engine and reason",
                    "reqps",
                    ((per("nv_inference_request_failure", "model, reason"), "{{model}} {{reason}}"),),
                ),
                Panel("Waiting", "short", (("sum by (model) (nv_inference_pending_request_count)", "{{model}}"),)),
                Panel(
                    "Mean batch",
                    "short",
                    ((ratio(per("nv_inference_count", "model"), per("nv_inference_exec_count", "model")), "{{model}}"),),
                ),
            ),
        ),
        (
            "Time of a request",
            (
                Panel("In the queue", "µs", ((mean_us("nv_inference_queue_duration_us"), "{{model}}"),)),
                Panel("Computing", "µs", ((mean_us("nv_inference_compute_infer_duration_us"), "{{model}}"),)),
                Panel(
                    "Input and output",
                    "µs",
                    (
                        (mean_us("nv_inference_compute_input_duration_us"), "{{model}} in"),
                        (mean_us("nv_inference_compute_output_duration_us"), "{{model}} out"),
                    ),
                ),
                Panel("In all", "µs", ((mean_us("nv_inference_request_duration_us"), "{{model}}"),)),
            ),
        ),
        (
            "Machine",
            (
                Panel("Processor", "percentunit", (("nv_cpu_utilization", "{{instance}}"),)),
                Panel("Memory", "bytes", (("nv_cpu_memory_used_bytes", "{{instance}}"),)),
            ),
        ),
    ),
)
