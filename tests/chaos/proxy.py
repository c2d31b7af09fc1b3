"""A TCP proxy before a server: it passes bytes on, and can refuse, reset or answer 503 instead."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

OPEN, REFUSED, RESET, UNAVAILABLE = "open", "refused", "reset", "503"
ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: to close is to reset
CHUNK = 2**16


class _Listening(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what it is for."""


class Proxy:
    """On a loopback port of its own, before another one."""

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.state = OPEN
        self.connections: set[socket.socket] = set()
        self.port = 0
        self._listen()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self, how: str) -> None:
        """From now on refuse, reset or answer 503; connections that are there are reset."""
        self.state = how
        if how == REFUSED:
            self._close()
        for connection in list(self.connections):
            reset(connection)

    def mend(self) -> None:
        """Pass everything on again."""
        if self.state == REFUSED:
            self._listen()
        self.state = OPEN

    def close(self) -> None:
        if self.state != REFUSED:
            self._close()
        self.cut(RESET)

    def _listen(self) -> None:
        proxy = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                proxy.serve(self.request)

        self.listening = _Listening(("127.0.0.1", self.port), Handler)
        self.port = self.listening.server_address[1]
        Thread(target=self.listening.serve_forever, args=(0.05,), daemon=True).start()

    def _close(self) -> None:
        self.listening.shutdown()
        self.listening.server_close()

    def serve(self, client: socket.socket) -> None:
        """Do with a connection as the proxy's state says."""
        if self.state == RESET:
            reset(client)
        elif self.state == UNAVAILABLE:
            turn_away(client)
        else:
            self._pass_on(client)

    def _pass_on(self, client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.behind)) as server:
            self.connections |= {client, server}
            try:
                back = Thread(target=pump, args=(server, client), daemon=True)
                back.start()
                pump(client, server)
                back.join()
            finally:
                self.connections -= {client, server}


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until there is no more, and then say so."""
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def turn_away(client: socket.socket) -> None:
    """Answer 503, whatever was asked; the question is read first, or the answer would be lost."""
    client.settimeout(1)
    with suppress(OSError):
        client.recv(CHUNK)
        client.sendall(ANSWER)
        client.shutdown(socket.SHUT_WR)
        while client.recv(CHUNK):
            pass


def reset(connection: socket.socket) -> None:
    """Cut a connection off without a goodbye. What waits for bytes of it is woken first."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        connection.shutdown(socket.SHUT_RD)
        connection.close()
