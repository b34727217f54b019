"""HTTP, event streams and WebSocket frames as bytes.

Only what a client needs, and nothing of a library: a library would refuse to send half of what
this harness sends.
"""

import base64
import json
import os
import socket
import struct
import time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
# What every server of this harness is started with, so that publishing works the same way on
# whichever address it listens.
TOKEN = "faults"
AUTHORIZED = f"Authorization: Bearer {TOKEN}"


def connect(address, timeout=5.0, receive_buffer=None):
    """A blocking connection. The receive buffer has to be set before the handshake, which tells
    the peer the window."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def request(method, target, *fields, body=b"", close=False):
    """A well-formed HTTP/1.1 request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *fields]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def upgrade(target, *fields):
    """A WebSocket's opening handshake, client side."""
    key = base64.b64encode(os.urandom(16)).decode()
    return request(
        "GET",
        target,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
        *fields,
    )


def publish(topic, body):
    """A request that publishes one event."""
    return request("POST", f"/publish?topic={topic}", AUTHORIZED, body=body, close=True)


def status_of(answer):
    """The status code that an answer begins with, or None."""
    head = answer[:12]
    if head.startswith(b"HTTP/1.") and head[9:12].isdigit():
        return int(head[9:12])
    return None


def read_to_end(sock, deadline, most=1 << 20):
    """What comes until the peer closes, the deadline passes or `most` bytes are there. A reset
    counts as the end: what came before it is returned."""
    data = b""
    while len(data) < most:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock.settimeout(left)
        try:
            chunk = sock.recv(65536)
        except (TimeoutError, ConnectionError):
            break
        if not chunk:
            break
        data += chunk
    return data


def read_until(sock, mark, deadline):
    """Reads until `mark` is there. Raises OSError where the peer closes or the time is over."""
    data = b""
    while mark not in data:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError(f"closed after {data[:80]!r}")
        data += chunk
    return data


def exchange(address, data, timeout=5.0):
    """Sends a request and reads the whole answer. Returns (status or None, the answer)."""
    deadline = time.monotonic() + timeout
    with connect(address, timeout) as sock:
        sock.sendall(data)
        answer = read_to_end(sock, deadline)
    return status_of(answer), answer


def frame(opcode, payload=b"", first_bits=0x80, masked=True):
    """One frame as a client sends it. `first_bits`: FIN and the reserved bits."""
    mask_bit = 0x80 if masked else 0
    head = bytes([first_bits | opcode])
    if len(payload) < 126:
        head += bytes([mask_bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([mask_bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([mask_bit | 127]) + struct.pack(">Q", len(payload))
    # A key of zeros is allowed, and saves the work of masking.
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Frames:
    """A stream of a server's frames. (This server never fragments.)"""

    def __init__(self):
        self.buffer = b""

    def feed(self, data):
        """Returns the frames that are complete now: (opcode, payload)."""
        buffer = self.buffer + data
        frames = []
        at = 0
        while len(buffer) - at >= 2:
            length, start = buffer[at + 1] & 0x7F, at + 2
            if length == 126:
                if len(buffer) < at + 4:
                    break
                length, start = struct.unpack_from(">H", buffer, at + 2)[0], at + 4
            elif length == 127:
                if len(buffer) < at + 10:
                    break
                length, start = struct.unpack_from(">Q", buffer, at + 2)[0], at + 10
            if len(buffer) < start + length:
                break
            frames.append((buffer[at] & 15, buffer[start : start + length]))
            at = start + length
        self.buffer = buffer[at:]
        return frames


class Events:
    """An event stream, as far as this server writes it: whole fields, lines ended by LF."""

    def __init__(self):
        self.buffer = b""

    def feed(self, data):
        """Returns the blocks that are complete now, each a dict of its fields."""
        *blocks, self.buffer = (self.buffer + data).split(b"\n\n")
        parsed = []
        for block in blocks:
            fields = {}
            for line in block.split(b"\n"):
                name, _, value = line.partition(b":")
                fields[name.decode()] = value.removeprefix(b" ").decode()
            parsed.append(fields)
        return parsed


def open_events(address, target="/events", timeout=5.0, receive_buffer=None):
    """An SSE client that has been greeted. Returns the socket and what came behind the
    greeting."""
    deadline = time.monotonic() + timeout
    sock = connect(address, timeout, receive_buffer)
    try:
        sock.sendall(request("GET", target))
        data = read_until(sock, b"Connection established\"}\n\n", deadline)
        if status_of(data) != 200:
            raise ConnectionError(f"{target}: {data[:80]!r}")
    except OSError:
        sock.close()
        raise
    return sock, data.partition(b"established\"}\n\n")[2]


def open_websocket(address, target="/ws", timeout=5.0, receive_buffer=None):
    """A WebSocket client that has been welcomed (on /echo: answered). Returns the socket and the
    frames that came behind the welcome."""
    deadline = time.monotonic() + timeout
    sock = connect(address, timeout, receive_buffer)
    try:
        sock.sendall(upgrade(target))
        head, _, rest = read_until(sock, b"\r\n\r\n", deadline).partition(b"\r\n\r\n")
        if status_of(head) != 101:
            raise ConnectionError(f"{target}: {head[:80]!r}")
        if target.startswith("/echo"):
            return sock, []
        frames = Frames()
        got = frames.feed(rest)
        while not got:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = sock.recv(65536)
            if not chunk:
                raise ConnectionError("closed before the welcome")
            got = frames.feed(chunk)
        welcome = json.loads(got[0][1])
        if welcome.get("type") != "info":
            raise ConnectionError(f"instead of the welcome: {welcome}")
    except OSError:
        sock.close()
        raise
    return sock, got[1:]


def reset(sock):
    """Closes with a reset instead of a farewell, and without leaving a port in TIME_WAIT."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()
