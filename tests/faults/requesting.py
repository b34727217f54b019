"""Attacks with requests that do not end, or that come all at once."""

import contextlib
import json
import select
import socket
import threading
import time

from frame import mebibytes, scenario
from herd import Herd, give, take
from wire import AUTHORIZED, PING, PONG, TEXT, Frames, connect, exchange, frame, open_websocket
from wire import publish, request, status_of, statuses

BLOCK = b"x" * 65536


@scenario(
    "endless header",
    "50 connections that send header bytes as fast as they can, for 5 s",
    peak=10,  # with what the server and its clients take that is 16
)
def endless_header(context):
    """One field without an end, or fields without an end; whoever is cut off comes back."""
    kinds = [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Endless: ", BLOCK),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X-Field: value\r\n" * 4096),
        (b"GET /" + b"a" * 1000, BLOCK),
        (b"", b"\r\n" * 32768),
        (b"GET /events HTTP/1.1\r\nHost: localhost\r\nX-Folded: a\r\n", b" b\r\n" * 16384),
    ]
    sent = flood(context, kinds, 5)
    context.note(f"{sent / 2**20:.0f} MiB sent")
    peak, rise = context.sampler.peak(), context.sampler.rise()
    context.note(f"{mebibytes(peak)} MiB in all at its height, {mebibytes(rise)} of them its own")


def flood(context, kinds, seconds):
    """50 connections that send a beginning, and then a block again and again."""
    sent = 0
    turn = 0
    end = time.monotonic() + seconds
    with Herd(context.address) as herd:
        while time.monotonic() < end:
            while len(herd) < 50:
                turn += 1
                herd.open([kinds[turn % len(kinds)], False])
            for sock, state, readable, writable in herd.ready():
                if readable:
                    chunk = take(sock)
                    if chunk is not None and not chunk:
                        herd.drop(sock)
                        continue
                if writable:
                    (head, block), started = state
                    count = give(sock, block if started else head)
                    if count is None:
                        herd.drop(sock)
                        continue
                    state[1] = True
                    sent += count
        context.note(f"{herd.opened:,} connections")
    return sent


@scenario(
    "endless body",
    "50 connections with bodies that never end, flooding for 4 s, then a byte at a time",
    flags=("--header-timeout", "2s"),
    peak=1024,
)
def endless_body(context):
    head = f"POST /publish?topic=body HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZED}\r\n".encode()
    lines = head + b"Content-Type: application/x-ndjson\r\n"
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    length = b"Content-Length: %d\r\n\r\n"
    counted = head + length
    elsewhere = b"%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000000000\r\n\r\n"
    chunk = b"10000\r\n" + BLOCK + b"\r\n"
    kinds = [
        (chunked, chunk),
        (chunked, b"1\r\nx\r\n" * 8192),
        (counted % 10**14, BLOCK),
        # The limit itself, and then more; read to the end, and no event (which would be kept).
        (lines + length % (1 << 20), BLOCK),
        (counted % (1 << 63), BLOCK),
        (elsewhere % b"GET /events", BLOCK),
        (elsewhere % b"POST /healthz", BLOCK),
        (elsewhere % b"GET /", BLOCK),
    ]
    sent = flood(context, kinds, 4)
    context.note(f"{sent / 2**20:.0f} MiB sent")
    trickle(context, [chunked + b"100000\r\n", counted % 100_000, counted % 1000])


def trickle(context, heads):
    """A body that comes a byte at a time ends at the deadline with 408."""
    answers = {}
    with Herd(context.address) as herd:
        for number in range(50):
            herd.open([heads[number % len(heads)], b""])
        start = time.monotonic()
        beat = 0
        # Header and body have two seconds each.
        while len(herd) and time.monotonic() < start + 10:
            for sock, state, readable, writable in herd.ready():
                if readable:
                    data = take(sock)
                    if data:
                        state[1] += data
                    elif data is not None:
                        status = status_of(state[1])
                        answers[status] = answers.get(status, 0) + 1
                        herd.drop(sock)
                        continue
                if writable:
                    give(sock, state[0])
                    state[0] = b""
                    herd.only_read(sock, state)
            if time.monotonic() > start + beat:
                beat += 0.5
                for sock, state in herd.all():
                    if not state[0]:
                        give(sock, b"x")
        left = len(herd)
    context.note(f"trickled bodies answered {answers}")
    context.check(left == 0, f"{left} of 50 trickled bodies were still being read after 10 s")
    context.check(set(answers) == {408}, f"trickled bodies were answered {answers}, not 408")


PIPELINED = 10_000
# Their responses are more than the kernel takes.
UNREAD = 60_000


@scenario(
    "pipelined requests",
    f"{PIPELINED:,} on one connection: alone, behind a body, behind SSE; {UNREAD:,} never read",
)
def pipelined(context):
    """Each is executed once, in order, and answered; what is behind SSE is not executed."""
    body = request("POST", "/publish?topic=none", AUTHORIZED, body=b"y" * 5000)
    events = request("GET", "/events?topic=none")
    with Witness(context, "pipe") as witness:
        for name, first, count, wanted in [
            ("alone", b"", PIPELINED, PIPELINED),
            ("behind a body", body, PIPELINED, PIPELINED),
            ("behind SSE", events, PIPELINED, 0),
            ("never read", b"", UNREAD, None),
        ]:
            sent = [request("POST", "/publish?topic=pipe", AUTHORIZED, body=f"{name} {n}".encode())
                    for n in range(count)]
            codes = send_pipelined(context, name, first + b"".join(sent), wanted is not None)
            status, _ = exchange(context.address, publish("pipe", b"null"))
            context.check(status == 200, f"{name}: publishing after it was answered {status}")
            # Everything executed so far has been handed to the witness when the marker is there.
            context.check(witness.marked(), f"{name}: the witness was not told")
            numbers = [int(text.rpartition(" ")[2]) for text in witness.seen]
            context.check(
                numbers == list(range(len(numbers))), f"{name}: not executed once each, in order"
            )
            if wanted is None:
                context.check(len(numbers) < count, f"{name}: all were executed all the same")
            else:
                context.check(len(numbers) == wanted, f"{name}: {len(numbers)} were executed")
                answered = wanted + bool(first)
                context.check(
                    codes == [200] * answered, f"{name}: {len(codes)} answered, not {answered}"
                )
            context.note(f"{name}: {len(numbers):,} executed")
            witness.seen.clear()


def send_pipelined(context, name, data, reads):
    """Sends as fast as it can, and reads what comes. Returns the statuses of the responses."""
    start = time.monotonic()
    sent, answer, more = 0, bytearray(), True
    with connect(context.address, receive_buffer=None if reads else 4096) as sock:
        sock.setblocking(False)
        # Where nobody reads, it has five seconds to show what it costs.
        end = start + (20 if reads else 5)
        while more and time.monotonic() < end:
            readable, writable, _ = select.select(
                [sock] if reads else [], [sock] if sent < len(data) else [], [], 2
            )
            if writable:
                count = give(sock, data[sent : sent + (1 << 16)])
                more, sent = count is not None, sent + (count or 0)
            if readable:
                chunk = take(sock)
                answer += chunk or b""
                more = more and chunk != b""
            # Nothing in either direction for two seconds: there is nothing more to come.
            more = more and bool(readable or writable or not reads)
    context.note(f"{name}: {sent / 2**20:.1f} MiB sent in {time.monotonic() - start:.1f} s")
    return statuses(bytes(answer))


class Witness:
    """Sees what is really published on a topic. Read by a thread of its own, so that the server does
    not take it for a slow client."""

    def __init__(self, context, topic):
        self.sock, _ = open_websocket(context.address, f"/ws?topic={topic}")
        self.sock.settimeout(None)
        self.seen = []
        self.markers = 0
        self.changed = threading.Condition()
        threading.Thread(target=self.run, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def run(self):
        frames = Frames()
        with contextlib.suppress(OSError):
            while data := self.sock.recv(1 << 18):
                for opcode, payload in frames.feed(data):
                    if opcode == PING:
                        self.sock.sendall(frame(PONG, payload))
                    elif opcode == TEXT:
                        self.take(json.loads(payload)["data"])

    def take(self, text):
        """A marker is an event whose data is 'null'."""
        with self.changed:
            if text == "null":
                self.markers += 1
                self.changed.notify()
            else:
                self.seen.append(text)

    def marked(self):
        """Waits for the next marker that was not waited for yet."""
        with self.changed:
            came = self.changed.wait_for(lambda: self.markers > 0, 10)
            self.markers -= came
            return came
