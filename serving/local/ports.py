"""Free ports of the loopback interface."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from serving.errors import SetupError


def free_ports(count: int) -> list[int]:
    """That many ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def require_free(port: int, what: str) -> None:
    """Raises SetupError where another program listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise SetupError(f"port {port} for {what} is taken: choose another in the settings, or 0 for a free one") from exc


def free_range(size: int) -> int:
    """The first of `size` free consecutive ports. Raises SetupError where there are none."""
    for start in free_ports(64):
        if start + size < 65536 and all(_is_free(port) for port in range(start, start + size)):
            return start
    raise SetupError(f"no {size} free consecutive ports on this machine")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
