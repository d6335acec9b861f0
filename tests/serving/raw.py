"""Requests as bytes, for what no client sends."""

from __future__ import annotations

import socket


def connect(url):
    host, _, port = url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def answer_to(url, request):
    """(head, body) of the answer to these bytes, after which the client says no more."""
    with connect(url) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has refused what came first
        parts = []
        while True:
            try:
                part = connection.recv(1 << 16)
            except ConnectionResetError:
                break
            if not part:
                break
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return head, body
