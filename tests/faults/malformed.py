"""Malformed HTTP, other versions of it, and malformed WebSocket frames."""

import collections
import os
import random
import struct
import time
from concurrent.futures import ThreadPoolExecutor

from corpus import REFUSE, corpus, get
from frame import mebibytes, scenario
from requesting import Witness
from wire import BINARY, CLOSE, PING, TEXT, Frames, connect, exchange, frame, open_websocket
from wire import publish, read_responses, statuses


@scenario(
    "malformed HTTP",
    f"{len(list(corpus()))} requests, right ones and wrong ones, each alone and behind another one",
    flags=("--header-timeout", "2s"),
)
def malformed_http(context):
    """What is right is executed; what is wrong is answered 4xx or 5xx, or closed, and nothing hidden
    in it is executed. It makes no difference that the connection has served a request before."""
    cases = list(corpus())
    before = get()
    with Witness(context, "smuggled") as witness, ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda case: try_case(context.address, case[2]), cases))
        behind = list(pool.map(lambda case: try_case(context.address, before + case[2]), cases))
        marker = publish("smuggled", b"null")
        context.check(exchange(context.address, marker)[0] == 200, "cannot publish after it")
        context.check(witness.marked(), "the witness was not told")
    context.check(not witness.seen, f"{len(witness.seen)} smuggled requests were executed")
    tally = collections.Counter()
    for (name, wanted, _), one, two in zip(cases, alone, behind):
        codes, ended, answer = one
        tally.update(["2xx" if is_good(code) else code for code in codes] or ["closed"])
        if not ended or not two[1]:
            context.fail(f"{name}: neither answered nor closed within {PATIENCE} s")
        if any(mark in answer for mark in (b"root:", b"\nX-Injected", b"\rX-Injected")):
            context.fail(f"{name}: {answer[:100]!r}")
        if any(code >= 500 and code not in (501, 505) for code in codes):
            context.fail(f"{name}: answered {codes}")
        if sum(map(is_good, codes)) != wanted or (wanted == REFUSE and len(codes) > 1):
            context.fail(f"{name}: {wanted} must be executed, answered {codes}")
        # A timeout may come too late to be waited for.
        if two[0] != [200, *codes] and not (codes[-1:] == [408] and two[0] == [200, *codes[:-1]]):
            context.fail(f"{name}: alone answered {codes}, behind another request {two[0]}")
    context.note(", ".join(f"{count} × {what}" for what, count in tally.most_common()))


def is_good(status):
    return status == 101 or 200 <= status < 300


PREFACES = 10_000


@scenario(
    "HTTP/2 prefaces",
    f"{PREFACES:,} requests of HTTP/2.0 and 3.0, 32 at a time, each answered 505",
    flags=("--header-timeout", "2s"),
)
def prefaces(context):
    """Scanners and clients with prior knowledge send them. The last one costs what the first does."""
    requests = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"POST /publish HTTP/3.0\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    ]
    tally, tenth = collections.Counter(), PREFACES // 10
    with ThreadPoolExecutor(32) as pool:
        for part in range(10):
            cases = [requests[number % len(requests)] for number in range(tenth)]
            start = time.monotonic()
            for codes, ended, _ in pool.map(lambda data: try_case(context.address, data), cases):
                tally[(*codes, "" if ended else "open")] += 1
            if part in (0, 9):
                figures = context.server.figures()
                context.note(
                    f"tenth {part + 1}: {time.monotonic() - start:.1f} s, then {figures.threads} "
                    f"threads, {figures.descriptors} descriptors, {mebibytes(figures.memory)} MiB"
                )
    context.check(tally == {(505, ""): PREFACES}, f"not all were answered 505 alone: {tally}")


PATIENCE = 8


def try_case(address, data):
    """Returns (the statuses of all responses, whether the server was done with it, what came)."""
    deadline = time.monotonic() + PATIENCE
    with connect(address) as sock:
        try:
            sock.sendall(data)
        except OSError:
            pass  # it may be closed before all is sent
        answer, ended = read_responses(sock, deadline)
    return statuses(answer), ended, answer


def declared(opcode, length, first_bits=0x80):
    """The head of a masked frame that declares this length, in the long form."""
    return bytes([first_bits | opcode, 0xFF]) + struct.pack(">Q", length) + b"\0\0\0\0"


def frames():
    """(name, the bytes, the close codes that may answer them)."""
    protocol, utf8, size = (1002,), (1007,), (1009,)
    for bits in (0x40, 0x20, 0x10, 0x70):
        yield f"reserved bits {bits:#x}", frame(TEXT, b"x", 0x80 | bits), protocol
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", frame(opcode, b"x"), protocol
    yield "unmasked", frame(TEXT, b"x", masked=False), protocol
    yield "long ping", frame(PING, b"x" * 126), protocol
    yield "fragmented ping", frame(PING, b"x", 0), protocol
    yield "long close", frame(CLOSE, b"\x03\xe8" + b"x" * 200), protocol
    for number in (2**64 - 1, 2**63, 2**63 - 1, 2**40, 2**30, (1 << 20) + 1):
        yield f"declares {number}", declared(BINARY, number), protocol + size
        yield f"ping declares {number}", declared(PING, number), protocol + size
    yield "continues nothing", frame(0, b"x"), protocol
    yield "interrupted message", frame(TEXT, b"x", 0) + frame(TEXT, b"x"), protocol
    yield "not UTF-8", frame(TEXT, b"\xff\xfe"), utf8
    yield "surrogate", frame(TEXT, b"\xed\xa0\x80"), utf8
    yield "cut off character", frame(TEXT, b"\xe2\x82"), utf8
    yield "close of one byte", frame(CLOSE, b"\x03"), protocol
    yield "close not UTF-8", frame(CLOSE, b"\x03\xe8\xff"), protocol + utf8
    for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535):
        yield f"close code {code}", frame(CLOSE, struct.pack(">H", code)), protocol
    piece = frame(BINARY, b"x" * 65536, 0) + frame(0, b"x" * 65536, 0) * 20
    yield "endless message", piece, size
    yield "endless empty message", frame(TEXT, b"", 0) + frame(0, b"", 0) * 20_000, None


@scenario(
    "malformed frames",
    "wrong WebSocket frames on /ws and /echo, each 10 times, noise, and 20 floods of pings",
)
def malformed_frames(context):
    """Each is answered with the right close frame, or closed; memory stays bounded."""
    cases = [(path, *case) for case in frames() for path in ("/ws", "/echo")] * 10
    noise = random.Random(1)
    for _ in range(200):
        cases.append(("/ws?topic=none", "noise", noise.randbytes(1000), None))
    tally = collections.Counter()
    wrong = {}
    with ThreadPoolExecutor(8) as pool:
        results = pool.map(lambda case: try_frames(context.address, *case), cases)
        for (path, name, _, allowed), outcome in zip(cases, results):
            if allowed is None:
                continue  # only the server's health matters
            tally[outcome] += 1
            if outcome == "open" or (isinstance(outcome, int) and outcome not in allowed):
                wrong[f"{name} on {path}"] = outcome
        for name, outcome in list(wrong.items())[:5]:
            context.fail(f"{name}: answered {outcome}")
        list(pool.map(lambda _: ping_flood(context.address), range(20)))
    context.note(", ".join(f"{count} × {what}" for what, count in tally.most_common()))


def try_frames(address, path, _name, data, allowed):
    """Returns the close code, 'closed' without one, or 'open' where neither came."""
    patience = 5 if allowed else 0.05
    sock, early = open_websocket(address, path)
    with sock:
        sock.settimeout(patience)
        try:
            sock.sendall(data)
        except OSError:
            pass  # closed while we were sending
        parser = Frames()
        deadline = time.monotonic() + patience
        received = early
        while time.monotonic() < deadline:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = sock.recv(65536)
            except TimeoutError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                return "closed"
            received += parser.feed(chunk)
            for opcode, payload in received:
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
    return "open"


def ping_flood(address):
    """Pings, and the pongs are never read: the server has to stop reading at some point."""
    sock, _ = open_websocket(address, "/ws")
    with sock:
        data = frame(PING, os.urandom(125)) * 500
        deadline = time.monotonic() + 1
        sent = 0
        while time.monotonic() < deadline and sent < 64 << 20:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                sent += sock.send(data)
            except OSError:
                break
    return sent
