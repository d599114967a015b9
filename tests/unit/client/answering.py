"""A server of a few lines that speaks just enough HTTP/2 to give every call one answer, as a proxy does in a server's place."""

import socket
import struct
import threading
from contextlib import contextmanager

DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CLOSED, RESET = 0, 2
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@contextmanager
def answering(status, body=b"<html><body>no server is available</body></html>"):
    """127.0.0.1:port, where each call gets this HTTP status and body; CLOSED or RESET are its connection's or stream's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, status, body), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)  # ends the accept


def _serve(listener, status, body):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, status, body), daemon=True).start()


def _answer(connection, status, body):
    with connection, connection.makefile("rb") as given:
        try:
            given.read(len(PREFACE))
            connection.sendall(_frame(SETTINGS, 0, 0, b""))
            while head := given.read(9):
                length, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
                payload, stream = given.read(length), head[5:]
                if kind == SETTINGS and not flags & ACK:
                    connection.sendall(_frame(SETTINGS, ACK, 0, b""))
                elif kind == PING and not flags & ACK:
                    connection.sendall(_frame(PING, ACK, 0, payload))
                elif kind == HEADERS:
                    ident = int.from_bytes(stream)
                    if status == CLOSED:
                        return
                    if status == RESET:  # INTERNAL_ERROR, as HAProxy says where its server is gone
                        connection.sendall(_frame(RST_STREAM, 0, ident, RESET.to_bytes(4)))
                        continue
                    connection.sendall(_frame(HEADERS, END_HEADERS, ident, _head(status)))
                    connection.sendall(_frame(DATA, END_STREAM, ident, body))
        except OSError:
            return  # the client left


def _frame(kind, flags, stream, payload):
    """RFC 9113, section 4.1."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def _head(status):
    """RFC 7541, section 6.2.2: literals without indexing; :status is 8 and content-type 31 of the static table."""
    return b"\x08\x03" + str(status).encode() + b"\x0f\x10\x09text/html"
