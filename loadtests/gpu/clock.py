"""How long a call takes on a device, replayed as a CUDA graph where it is one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

WARM = 3


def graphed(call: Callable[[], Any], device: str) -> tuple[Callable[[], None], Any]:
    """The call as a graph's replay, and its outputs, which every replay writes anew. On a CPU the call itself."""
    for _ in range(WARM):
        made = call()
    if device == "cpu":
        return lambda: (call(), None)[1], made
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()
    return graph.replay, made


def times_ms(replay: Callable[[], Any], device: str, seconds: float = 0.4, most: int = 400) -> dict[str, float]:
    """`each_ms`: of one call in a queue of them, median of groups; `alone_ms`: from the call to its end, median."""
    for _ in range(WARM):
        replay()
    sync(device)
    start = time.perf_counter()
    replay()
    sync(device)
    count = max(3, min(most, int(seconds / max(time.perf_counter() - start, 1e-5))))
    alone = []
    for _ in range(min(count, 100)):
        start = time.perf_counter()
        replay()
        sync(device)
        alone.append(1e3 * (time.perf_counter() - start))
    return {"each_ms": round(_queued(replay, device, count), 4), "alone_ms": round(statistics.median(alone), 4)}


def _queued(replay: Callable[[], Any], device: str, count: int) -> float:
    groups = []
    for _ in range(3):
        if device == "cpu":
            start = time.perf_counter()
            for _ in range(max(1, count // 3)):
                replay()
            groups.append(1e3 * (time.perf_counter() - start) / max(1, count // 3))
            continue
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(max(1, count // 3)):
            replay()
        end.record()
        end.synchronize()
        groups.append(begin.elapsed_time(end) / max(1, count // 3))
    return statistics.median(groups)


def sync(device: str) -> None:
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize()
