"""What the pods of the Helm chart run, beside Ray and Triton.

`application`: what RayService imports. `prepare`: the init container of a pod with a Triton. `sidecar`: the embedded Triton as
a container of its own, for a CPU. `exporter`: one pod's metrics for Prometheus.
"""
