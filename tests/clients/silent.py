"""A WebSocket client that never answers."""

import socket

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: silent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def silent_websocket(port):
    """Connects, and waits until the server has given it up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HANDSHAKE.encode())
        while connection.recv(4096):
            pass
