"""HTTP, event streams and WebSocket frames as bytes.

Only what a client needs, and nothing of a library: a library would refuse to send half of what
this harness sends.
"""

import base64
import json
import os
import re
import socket
import struct
import time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
# What every server of this harness is started with, so that publishing works the same way on
# whichever address it listens.
TOKEN = "faults"
AUTHORIZED = f"Authorization: Bearer {TOKEN}"
# The end of a stream's first chunk.
GREETED = b'Connection established"}\n\n\r\n'
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
# How long nothing more has to come for a connection that stays open to have said everything.
QUIET = 1.0


def connect(address, timeout=5.0, receive_buffer=None, source=None):
    """A blocking connection. The receive buffer has to be set before the handshake, which tells
    the peer the window. `source` is the address of ours that it comes from: any in 127/8."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        if source:
            sock.bind((source, 0))
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


def receive(sock, deadline):
    """The next bytes; none at the end, after a reset, or where the deadline has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        return b""
    sock.settimeout(left)
    try:
        return sock.recv(65536)
    except (TimeoutError, ConnectionError):
        return b""


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


def response_end(data, start=0):
    """Where the response that begins at `start` ends, with the interim ones (1xx) before it. None
    where it is not complete, or where only the connection's end ends it. (A response to HEAD says a
    length and has no body; this harness sends no HEAD.)"""
    while (head := data.find(b"\r\n\r\n", start)) >= 0:
        status, body = status_of(data[start : start + 12]), head + 4
        if status == 100:
            start = body
            continue
        if status in (101, 204, 304):
            return body
        length = LENGTH.search(data, start, body)
        end = body + int(length[1]) if length else None
        return end if end is not None and end <= len(data) else None
    return None


def statuses(data):
    """The status codes of all responses that have begun; interim ones are left out."""
    codes, start = [], 0
    while (end := response_end(data, start)) is not None:
        codes.append(status_of(final(data[start:end])))
        start = end
    last = status_of(data[start : start + 12])
    return codes if last is None else [*codes, last]


def final(response):
    """A response without the interim ones before it."""
    while status_of(response[:12]) == 100:
        response = response.partition(b"\r\n\r\n")[2]
    return response


def read_responses(sock, deadline):
    """Reads until the peer closes, or has answered, keeps the connection open, and says nothing more.
    Returns (what came, whether that was before the deadline)."""
    data, complete = b"", 0
    while (left := deadline - time.monotonic()) > 0:
        while (end := response_end(data, complete)) is not None:
            stays = b"\r\nConnection: close" not in data[complete:end]
            complete = end
        is_quiet = complete and complete == len(data) and stays
        sock.settimeout(min(left, QUIET) if is_quiet else left)
        try:
            chunk = sock.recv(65536)
        except TimeoutError:
            if is_quiet:
                return data, True
            continue
        except ConnectionError:
            return data, True
        if not chunk:
            return data, True
        data += chunk
    return data, False


def exchange(address, data, timeout=5.0, source=None):
    """Sends a request and reads the whole response, by its length or to the connection's end.
    Returns (status or None, the response)."""
    deadline = time.monotonic() + timeout
    answer = b""
    with connect(address, timeout, source=source) as sock:
        sock.sendall(data)
        while response_end(answer) is None and (chunk := receive(sock, deadline)):
            answer += chunk
    answer = final(answer)
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
    """An event stream in chunks, as far as this server writes it: whole fields, lines ended by LF.
    It begins between two chunks."""

    def __init__(self):
        self.buffer = b""  # of a chunk that is not complete
        self.line = b""
        self.fields = {}
        self.retries = 0
        self.is_whole = False  # whether the last chunk has come

    def feed(self, data):
        """Returns the blocks that are complete now, each a dict of its fields."""
        self.buffer += data
        text, at = [], 0
        while (end := self.buffer.find(b"\r\n", at)) >= 0:
            start, length = end + 2, int(self.buffer[at:end], 16)
            if len(self.buffer) < start + length + 2:
                break
            if self.is_whole or self.buffer[start + length : start + length + 2] != b"\r\n":
                raise ValueError(f"no chunk: {self.buffer[at : at + 80]!r}")
            text.append(self.buffer[start : start + length])
            at, self.is_whole = start + length + 2, length == 0
        self.buffer = self.buffer[at:]
        *lines, self.line = (self.line + b"".join(text)).split(b"\n")
        blocks = []
        for line in lines:
            name, _, value = line.partition(b":")
            if not line:
                blocks.append(self.fields)
                self.fields = {}
            elif name == b"retry":
                self.retries += 1
            elif name:
                self.fields[name.decode()] = value.removeprefix(b" ").decode()
        return blocks


def open_events(address, target="/events", timeout=5.0, receive_buffer=None, source=None):
    """An SSE client that has been greeted. Returns the socket and what came behind the
    greeting."""
    deadline = time.monotonic() + timeout
    sock = connect(address, timeout, receive_buffer, source)
    try:
        sock.sendall(request("GET", target))
        data = read_until(sock, GREETED, deadline)
        if status_of(data) != 200:
            raise ConnectionError(f"{target}: {data[:80]!r}")
    except OSError:
        sock.close()
        raise
    return sock, data.partition(GREETED)[2]


def open_websocket(address, target="/ws", timeout=5.0, receive_buffer=None, source=None):
    """A WebSocket client that has been welcomed (on /echo: answered). Returns the socket and the
    frames that came behind the welcome."""
    deadline = time.monotonic() + timeout
    sock = connect(address, timeout, receive_buffer, source)
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
