"""Free ports below the range from which the kernel takes those of outgoing connections.

A port from that range may be free when it is chosen and be taken, by any program's connection to anywhere, before its server
binds it (ip(7), `ip_local_port_range`). Ray's own workers take 10002 to 19999.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

from serving.errors import SetupError

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, LEAST = 20_000, 1_000
_given: set[int] = set()
"""What this process has handed out: free until its server binds it, and not to be handed out twice."""


def span(range_file: Path = RANGE) -> range:
    """The ports to choose from: from 20000 up to the outgoing range, or from 1024 where that leaves fewer than a thousand."""
    try:
        low = int(range_file.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32_768
    return range(FIRST, low) if low >= FIRST + LEAST else range(1024, max(low, 1024 + LEAST))


def free_ports(count: int) -> list[int]:
    """That many ports that are free now. Raises SetupError where there are none."""
    return [free_range(1) for _ in range(count)]


def free_range(size: int) -> int:
    """The first of `size` free consecutive ports. Raises SetupError where there are none."""
    for start in _starts(size):
        wanted = range(start, start + size)
        if _given.isdisjoint(wanted) and all(map(_is_free, wanted)):
            _given.update(wanted)
            return start
    raise SetupError(f"no {size} free consecutive ports on this machine")


def require_free(port: int, what: str) -> None:
    """Raises SetupError where another program listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise SetupError(f"port {port} for {what} is taken: choose another in the settings, or 0 for a free one") from exc


def _starts(size: int) -> Iterator[int]:
    """Everywhere that so many fit, from a place of its own for each process: two that start together rarely meet."""
    ports = span()
    places = len(ports) - size + 1
    first = random.SystemRandom().randrange(places)
    return (ports[(first + step) % places] for step in range(places))


def _is_free(port: int) -> bool:
    """On every interface: Ray's HAProxy binds its own ports on all of them."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
