"""Which mode of Ray Serve carries bodies of 0.1, 1 and 10 MB best? Default proxy against the optimised modes, interleaved.

    python loadtests/ray_modes.py --repeats 3

Each repeat starts a fresh local Ray in each mode with one ingress replica over one pool replica, and sends bodies one at a
time: to the ingress alone, and on through a handle to the pool. Prints a Markdown table of medians and ranges, ms.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = {"1 KB": 1_000, "0.1 MB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}
CALLS = 40


def one_mode(mode: str) -> None:
    """Child process: start Ray in a mode, measure, print JSON."""
    from serving.local.ray import LocalRay, environment
    from serving.settings import load

    run_dir = Path(tempfile.mkdtemp(prefix="ray-modes-"))
    (run_dir / "metrics").mkdir()
    environ = environment(run_dir, run_dir / "metrics", 128 * 1024 * 1024)
    if mode == "default":
        for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED"):
            environ.pop(name)
    local = LocalRay(load(environ={}, http={"port": 0}, grpc={"port": 0}), run_dir, servicers=())
    local.start(environ)

    import httpx
    from ray import serve
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    @serve.deployment
    class Pool:
        async def answer(self, data: bytes) -> int:
            return len(data)

    @serve.deployment
    @serve.ingress()
    class Ingress:
        def __init__(self, pool) -> None:
            self.pool = pool

        def __serve_build_asgi_app__(self) -> Starlette:
            async def ingress(request: Request) -> Response:
                return PlainTextResponse(str(len(await request.body())))

            async def pool(request: Request) -> Response:
                return PlainTextResponse(str(await self.pool.answer.remote(await request.body())))

            return Starlette(routes=[Route("/ingress", ingress, methods=["POST"]), Route("/pool", pool, methods=["POST"])])

    light = {"num_cpus": 0}
    local.deploy(Ingress.options(ray_actor_options=light).bind(Pool.options(ray_actor_options=light).bind()))
    found = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{local.http_port}", timeout=60) as client:
        for path in ("/ingress", "/pool"):
            for name, size in SIZES.items():
                body = os.urandom(size)
                client.post(path, content=body).raise_for_status()
                times = []
                for _ in range(CALLS):
                    start = time.perf_counter()
                    client.post(path, content=body).raise_for_status()
                    times.append((time.perf_counter() - start) * 1e3)
                found[f"{path[1:]} {name}"] = statistics.median(times)
    local.stop()
    print("RESULT " + json.dumps(found))


def main() -> None:
    """Run both modes in turn and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mode")
    options = parser.parse_args()
    if options.mode:
        one_mode(options.mode)
        return
    rows: dict[str, dict[str, list[float]]] = {}
    for _ in range(options.repeats):
        for mode in ("default", "optimised"):
            command = [sys.executable, __file__, "--mode", mode]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
            for case, median_ms in json.loads(line.removeprefix("RESULT ")).items():
                rows.setdefault(case, {}).setdefault(mode, []).append(median_ms)
    print("| way and body | default proxy, ms | optimised, ms | ratio |\n| --- | --- | --- | --- |")
    for case, modes in rows.items():
        cells = [f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in (modes["default"], modes["optimised"])]
        ratio = statistics.median(modes["default"]) / statistics.median(modes["optimised"])
        print(f"| {case} | {cells[0]} | {cells[1]} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
