"""A proxy in front of a network that mishandles what passes through it, by the dice of a seed.

It speaks HTTP/1.1 over real sockets. Each request meets one of MISHAPS or passes; `kinds` chooses
among them and `share` says how many requests meet one.
"""

from __future__ import annotations

import http.client
import random
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

MISHAPS = (
    "request lost",
    "answer lost",
    "silence",
    "delay",
    "request twice",
    "answer twice",
    "another's answer",
    "one byte changed",
    "one bit of the status changed",
    "cut off",
    "busy",
    "told to wait",
)


class ChaosProxy:
    """Runs while its context lasts; `url` is where it listens, `met` counts what it did."""

    def __init__(
        self, upstream: str, seed: int, share: float = 0.5, kinds: Sequence[str] = MISHAPS
    ) -> None:
        self.host = urlsplit(upstream).netloc
        self.random = random.Random(seed)
        self.share, self.kinds = share, kinds
        self.met: Counter[str] = Counter()
        self.earlier: list[bytes] = []
        self.lock = threading.Lock()
        self.over = threading.Event()

    def __enter__(self) -> ChaosProxy:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    while proxy.serve(self.rfile, self.connection):
                        pass
                except OSError:
                    pass  # the client has gone away

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *arguments: object) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def draw(self) -> tuple[str, float]:
        """What befalls a request, and a number from 0 to 1 for how."""
        with self.lock:
            bad = self.random.random() < self.share
            kind = self.random.choice(self.kinds) if bad else "passed"
            self.met[kind] += 1
            return kind, self.random.random()

    def serve(self, rfile: Any, client: socket.socket) -> bool:
        """One request; whether the connection may be used again."""
        line = rfile.readline()
        if not line:
            return False
        headers = http.client.parse_headers(rfile)
        body = rfile.read(int(headers.get("Content-Length") or 0))
        method, path, _ = line.decode().split()
        kind, chance = self.draw()
        if kind == "request lost":
            return False
        if kind == "busy":
            client.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return True
        if kind == "told to wait":
            client.sendall(b"HTTP/1.1 429 Wait\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")
            return True
        answer = self.ask(method, path, body)
        if kind == "request twice":
            answer = self.ask(method, path, body)
        return self.give(kind, chance, answer, client)

    def give(self, kind: str, chance: float, answer: bytes, client: socket.socket) -> bool:
        """Brings the client an answer, or what has become of it."""
        changed = bytearray(answer)
        if kind == "answer lost":
            return False
        if kind == "silence":
            self.over.wait(30)
            return False
        if kind == "delay":
            self.over.wait(0.3 * chance)
        elif kind == "cut off":
            client.sendall(answer[: int(chance * len(answer))])
            return False
        elif kind == "another's answer":
            with self.lock:
                self.earlier.append(answer)
                answer = self.earlier.pop(int(chance * len(self.earlier)))
        elif kind == "one byte changed":
            changed[int(chance * len(answer))] ^= 1 + int(chance * 10**6) % 255
            answer = bytes(changed)
        elif kind == "one bit of the status changed":
            changed[9 + int(3 * chance)] ^= 1
            answer = bytes(changed)
        client.sendall(answer)
        if kind == "answer twice":
            client.sendall(answer)
        with self.lock:
            self.earlier = [*self.earlier, answer][-8:]
        return True

    def ask(self, method: str, path: str, body: bytes) -> bytes:
        """The network's own answer, as it goes over the wire."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/cbor"})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        head = (
            f"HTTP/1.1 {response.status} {response.reason}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data
