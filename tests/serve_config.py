"""Runs a Serve config file on a local Ray as KubeRay has a cluster run it: `ServeDeploySchema`, then the controller's own way.

    python tests/serve_config.py CONFIG.yaml '{"router": 1}' RUN_DIR

Says "running" when the application runs, and what is wrong where it does not; ends when its input does.
"""

import json
import os
import sys
import time
from pathlib import Path

import yaml

START_S = 300


def main():
    config_file, resources, run_dir = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
    from cluster import guard

    from serving.local.ray import environment

    guard(run_dir)
    config = yaml.safe_load(config_file.read_text())
    own = {"RAY_TMPDIR": str(run_dir)}
    os.environ.update(environment(run_dir, Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), 128 * 1024 * 1024) | own)
    import ray
    from ray.serve._private.api import serve_start
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(config)
    ray.init(
        address="local",
        num_cpus=0,
        resources=resources,
        include_dashboard=False,
        object_store_memory=100 * 1024 * 1024,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=str(run_dir / "ray"),
    )
    client = serve_start(
        http_options=schema.http_options.model_dump(),
        proxy_location=schema.proxy_location,
        grpc_options=schema.grpc_options.model_dump(),
        global_logging_config=schema.logging_config,
    )
    client.deploy_apps(schema)
    print(wait(client), flush=True)
    sys.stdin.read()
    ray.shutdown()


def wait(client):
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        found = client.list_serve_statuses()
        said = [status.app_status for status in found]
        if said and all(each.status == "RUNNING" for each in said):
            return "running"
        if any(each.status == "DEPLOY_FAILED" for each in said):
            return f"failed: {said[0].message}"
        time.sleep(0.2)
    return f"failed: not running after {START_S} s: {found}"


if __name__ == "__main__":
    main()
