"""Requests as bytes, for what no client sends."""

from __future__ import annotations

import contextlib
import re
import socket


def answer_to(url, request, patience=20.0):
    """(head, body) of the answer to these bytes; the client hangs up after so many seconds without one."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    parts = []
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        with contextlib.suppress(OSError):  # the server may have refused what came first
            connection.sendall(request)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while part := connection.recv(1 << 16):
                parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return head, body[: int(length[1])] if length else body  # another answer may follow
