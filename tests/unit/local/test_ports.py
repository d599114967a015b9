import socket

import pytest

from serving.errors import SetupError
from serving.local import ports


def outgoing(tmp_path, text):
    path = tmp_path / "range"
    path.write_text(text)
    return path


def test_ports_are_below_those_of_outgoing_connections(tmp_path):
    assert ports.span(outgoing(tmp_path, "32768\t60999\n")) == range(20000, 32768)
    assert max(ports.span(outgoing(tmp_path, "15000 65000"))) < 15000
    assert ports.span(tmp_path / "absent") == range(20000, 32768)
    assert all(port in ports.span() for port in ports.free_ports(20))


def test_no_port_is_given_twice():
    given = ports.free_ports(50)
    start = ports.free_range(16)
    assert len(set(given) | set(range(start, start + 16))) == 66


def test_a_taken_port_is_not_given(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.free_ports(1)[0]))
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "span", lambda: range(port, port + 1))
        monkeypatch.setattr(ports, "_given", set())
        with pytest.raises(SetupError, match="no 1 free"):
            ports.free_range(1)
