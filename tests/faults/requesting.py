"""Attacks with requests that do not end, or that come all at once."""

import json
import time

from frame import scenario
from herd import Herd, give, take
from wire import AUTHORIZED, Frames, connect, exchange, open_websocket, publish
from wire import read_to_end, request, status_of

BLOCK = b"x" * 65536


@scenario(
    "endless header",
    "50 connections that send header bytes as fast as they can, for 5 s",
    peak=1024,  # gigabytes come in all; how late they are stopped is the scheduler's choice
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


@scenario("pipelined requests", f"{PIPELINED:,} requests on one connection, alone and behind SSE")
def pipelined(context):
    """tiny_http parses ahead, and lets each answer wait for the one before."""
    with Witness(context, "pipe") as witness:
        for name, first in [
            ("alone", b""),
            ("behind SSE", request("GET", "/events?topic=none")),
            ("behind a body", request("POST", "/publish?topic=none", AUTHORIZED, body=b"y" * 5000)),
        ]:
            send_pipelined(context, name, first, witness)
    numbers = witness.seen
    twice = len(numbers) - len(set(numbers))
    context.check(twice == 0, f"{twice} pipelined requests were executed twice")
    context.note(f"{len(numbers)} of {3 * PIPELINED:,} executed")


def send_pipelined(context, name, first, witness):
    requests = [
        request(
            "POST", "/publish?topic=pipe", AUTHORIZED, body=json.dumps([name, number]).encode()
        )
        for number in range(PIPELINED)
    ]
    start = time.monotonic()
    with connect(context.address) as sock:
        data = first + b"".join(requests)
        sent = 0
        sock.setblocking(False)
        while sent < len(data) and time.monotonic() < start + 5:
            count = give(sock, data[sent : sent + (1 << 16)])
            if count is None:
                break
            sent += count
            if not count:
                time.sleep(0.001)
        answer = read_to_end(sock, time.monotonic() + 5)
    took = time.monotonic() - start
    context.note(f"{name}: closed after {took:.2f} s, {answer.count(b'HTTP/1.1 ')} answers")
    context.check(took < 5, f"{name}: the connection was still open after {took:.1f} s")
    status, _ = exchange(context.address, publish("pipe", b"null"))
    context.check(status == 200, f"{name}: publishing after it was answered {status}")
    # Everything executed so far has been handed to the witness when the marker is there.
    context.check(witness.marked(), f"{name}: the witness was not told")


class Witness:
    """Sees what is really published on a topic."""

    def __init__(self, context, topic):
        self.sock, _ = open_websocket(context.address, f"/ws?topic={topic}")
        self.frames = Frames()
        self.seen = []
        self.markers = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def look(self):
        self.sock.settimeout(0.05)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            return
        for opcode, payload in self.frames.feed(data):
            if opcode == 1:
                text = json.loads(payload)["data"]
                if text == "null":
                    self.markers += 1
                else:
                    self.seen.append(text)

    def marked(self):
        """Waits for the next marker: an event whose data is 'null'."""
        before = self.markers
        deadline = time.monotonic() + 5
        while self.markers == before and time.monotonic() < deadline:
            self.look()
        return self.markers > before
