"""Ray's own metrics."""

from __future__ import annotations

from boards.panel import Dashboard, Panel, per, quantile

RAY = Dashboard(
    "ray",
    "medserve: Ray",
    (
        (
            "Replicas",
            (
                Panel(
                    "Healthy replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_deployment_replica_healthy)", "{{deployment}}"),),
                ),
                Panel(
                    "Replicas seen in an hour",
                    "short",
                    (
                        (
                            "count by (deployment) (last_over_time(ray_serve_deployment_replica_starts_total[1h]))",
                            "{{deployment}}",
                        ),
                    ),
                ),
                Panel(
                    "At work in replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_replica_processing_queries)", "{{deployment}}"),),
                ),
                Panel(
                    "Waiting for replicas",
                    "short",
                    (("sum by (deployment) (ray_serve_deployment_queued_queries)", "{{deployment}}"),),
                ),
            ),
        ),
        (
            "Requests",
            (
                Panel(
                    "Requests by deployment",
                    "reqps",
                    ((per("ray_serve_deployment_request_counter_total", "deployment"), "{{deployment}}"),),
                ),
                Panel(
                    "Latency in a deployment, 95th percentile",
                    "ms",
                    ((quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment"), "{{deployment}}"),),
                ),
                Panel(
                    "HTTP answers by status",
                    "reqps",
                    ((per("ray_serve_num_http_requests_total", "status_code"), "{{status_code}}"),),
                ),
            ),
        ),
        (
            "Nodes",
            (
                Panel("Processor", "percent", (("ray_node_cpu_utilization", "{{instance}}"),)),
                Panel("Memory used", "bytes", (("ray_node_mem_used", "{{instance}}"),)),
                Panel("Disk used", "percent", (("ray_node_disk_utilization_percentage", "{{instance}}"),)),
                Panel("Shared memory in use", "bytes", (("ray_node_mem_shared_bytes", "{{instance}}"),)),
            ),
        ),
    ),
)
