"""Attacks with connections that say little or nothing."""

import json
import resource
import socket
import time

from frame import FEW_THREADS, LEFT_BY_A_CROWD, SETTLE, course, poll, scenario
from herd import Herd, give, take
from target import Sampler, Server
from wire import GREETED, Events, Frames, publish, exchange, request, reset, status_of, upgrade

ROUNDS = 200


@course("first connects", f"{ROUNDS} fresh servers, on each 20 SSE + 20 WebSocket + 20 plain at once")
def first_connects(binary, result):
    """A fresh server has no idle threads yet: every one of them has to be started."""
    slowest = 0.0
    for number in range(ROUNDS):
        server = Server(binary)
        try:
            sampler = None
            if number == ROUNDS - 1:
                result.before = server.figures()
                sampler = Sampler(server)
            took, problem = first_round(server)
            slowest = max(slowest, took)
            if problem:
                result.failures.append(f"round {number}: {problem}")
            if took > 1.0:
                result.failures.append(f"round {number}: the last of 60 was served after {took:.2f} s")
            if "panicked" in server.log():
                result.failures.append(f"round {number}: {server.log()[:160]}")
            if sampler:
                result.during = sampler.stop()
                few = result.before.threads + FEW_THREADS
                poll(lambda: server.figures().threads <= few, SETTLE)
                result.after = server.figures()
                if result.after.threads > few:
                    result.failures.append(
                        f"{result.after.threads} threads stay, before it {result.before.threads}"
                    )
        finally:
            server.kill()
        if len(result.failures) >= 5:
            break
    result.events = number + 1
    result.worst = dict.fromkeys(("plain", "sse", "ws"), slowest)
    result.notes.append("worst: the slowest of all 12,000 first clients")


def first_round(server):
    """60 clients at once; each is served, and each of 40 gets the event that follows. Returns the
    seconds until the last was served, and what was wrong."""
    requests = {
        "plain": request("GET", "/healthz", close=True),
        "sse": request("GET", "/events?topic=t"),
        "ws": upgrade("/ws?topic=t"),
    }
    with Herd(server.address) as herd:
        start = time.monotonic()
        for _ in range(20):
            for kind in requests:
                herd.open([kind, b"", False])
        waiting = len(herd)
        while waiting and time.monotonic() < start + 10:
            for sock, state, readable, writable in herd.ready():
                if writable:
                    sock.send(requests[state[0]])
                    herd.only_read(sock, state)
                elif readable:
                    chunk = take(sock) or b""
                    state[1] += chunk
                    if not state[2] and is_served(*state[:2]):
                        state[2] = True
                        waiting -= 1
                    if not chunk:
                        herd.drop(sock)
        took = time.monotonic() - start
        if waiting:
            return took, f"{waiting} of 60 were not served within 10 s"
        streams = [state for _, state in herd.all() if state[0] != "plain"]
        if len(streams) != 40:
            return took, f"{40 - len(streams)} of 40 streams were closed"
        status, answer = exchange(server.address, publish("t", b"first"))
        if status != 200 or json.loads(answer.partition(b"\r\n\r\n")[2])["subscribers"] != 40:
            return took, f"publishing was answered {answer[-80:]!r}"
        missing = len(streams)
        deadline = time.monotonic() + 10
        while missing and time.monotonic() < deadline:
            for sock, state, _, _ in herd.ready():
                state[1] += take(sock) or b""
                if state[0] == "plain":
                    herd.drop(sock)
                elif state[2] and has_event(*state[:2]):
                    state[2] = False
                    missing -= 1
        return took, f"{missing} of 40 missed the first event" if missing else None


def is_served(kind, data):
    if kind == "plain":
        return status_of(data) == 200 and b'"ok"' in data
    if kind == "sse":
        return status_of(data) == 200 and data.endswith(GREETED)
    return status_of(data) == 101 and b"Welcome" in data


def has_event(kind, data):
    if kind == "sse":
        return any(f.get("data") == "first" for f in Events().feed(data.partition(GREETED)[2]))
    frames = Frames().feed(data.partition(b"\r\n\r\n")[2])
    return len(frames) == 2 and json.loads(frames[1][1])["data"] == "first"


@scenario(
    "silent connections",
    "3,000 connections that say nothing, at 1,024 descriptors",
    flags=("--header-timeout", "2s", "--tick", "200ms"),
    within=None,
    left=LEFT_BY_A_CROWD,
)
def silent(context):
    """Held well beyond the header timeout, so that the server meets them whichever way they come:
    kept by the kernel until they say something, or accepted."""
    limited = context.server.limited(resource.RLIMIT_NOFILE, 1024)
    with limited, Herd(context.address) as herd:
        herd.fill(3000)
        connected = herd.connected(10)
        context.check(connected >= 2900, f"only {connected} of 3,000 could connect")
        closed = len(herd.until_closed(8))
        context.note(f"{closed} of them closed by the server while they stayed")


@scenario(
    "slowloris",
    "1,000 connections that send a byte of header a second, each coming back when closed",
    flags=("--header-timeout", "2s"),
    left=LEFT_BY_A_CROWD,
)
def slowloris(context):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"s" * 1000
    answers = {}
    with Herd(context.address) as herd:
        start = time.monotonic()
        beat = 0
        while time.monotonic() < start + 7:
            herd.fill(1000, 0)
            for sock, sent, readable, writable in herd.ready():
                if readable:
                    chunk = take(sock)
                    if chunk:
                        status = status_of(chunk)
                        answers[status] = answers.get(status, 0) + 1
                    elif chunk is not None:
                        herd.drop(sock)
                        continue
                if writable:
                    herd.only_read(sock, sent)
            if time.monotonic() > start + beat:
                beat += 1
                for sock, sent in herd.all():
                    if give(sock, head[sent : sent + 1]):
                        herd.only_read(sock, sent + 1)
    context.note(f"{herd.opened:,} connections, answered {answers}")
    context.check(answers.get(408, 0) > 500, f"a late header was not answered 408: {answers}")


HALVES = 2000


@scenario(
    "half heads",
    f"{HALVES:,} heads that come a byte a second, from the address of the good clients",
    left=LEFT_BY_A_CROWD,
)
def half_heads(context):
    """More than may be pending. Whoever is closed to make room for another comes back within a
    second."""
    with Herd(context.address) as herd:
        closed = dribble(herd, HALVES, 10)
        context.note(f"{herd.opened:,} connections, {closed:,} closed by the server")
        context.check(closed > 0, "not one was closed to make room")


def dribble(herd, count, seconds):
    """Keeps `count` heads open, each of which gets a byte a second. Returns how many the server has
    closed."""
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"s" * 1000
    start, beat, closed = time.monotonic(), 0, 0
    while time.monotonic() < start + seconds:
        for sock, sent, readable, writable in herd.ready():
            if readable and take(sock) == b"":
                closed += 1
                herd.drop(sock)
            elif writable:
                herd.only_read(sock, give(sock, head[:20]) or 0)
        if time.monotonic() > start + beat:
            beat += 1
            for sock, sent in herd.all():
                if sent and give(sock, head[sent : sent + 1]):
                    herd.only_read(sock, sent + 1)
            herd.fill(count, 0)
    return closed


SILENT, FAST = 8000, 2000


@scenario(
    "one greedy address",
    f"{SILENT:,} silent connections and {FAST:,} that come back at once; good clients from elsewhere",
    source="127.0.0.2",
    left=LEFT_BY_A_CROWD,
)
def greedy(context):
    """Half of the silent ones send an empty line, or the kernel would keep all of them from the
    server. Those that come back send the beginning of a head, and are reset at once."""
    deadline = time.monotonic() + 12
    closed = 0
    with Herd(context.address) as silent, Herd(context.address) as fast:
        while time.monotonic() < deadline:
            # Some hundred at a time: the queue of those that are not accepted yet has an end.
            for _ in range(min(400, SILENT - len(silent))):
                silent.open(b"\r\n" if silent.opened % 2 else b"")
            for sock, line, readable, writable in silent.ready(0):
                if readable and take(sock) == b"":
                    closed += 1
                    silent.drop(sock)
                elif writable:
                    give(sock, line)
                    silent.only_read(sock)
            fast.fill(FAST)
            for sock, _, readable, writable in fast.ready(0.01):
                if writable:
                    give(sock, b"GET / HTTP/1.1\r\nHost:")
                    fast.only_read(sock)
                else:
                    fast.hang_up(sock)
            # The oldest have had their time.
            for sock, _ in fast.all()[: FAST // 4]:
                fast.hang_up(sock)
        context.note(
            f"{silent.opened:,} silent connections, {closed:,} of them closed by the server; "
            f"{fast.opened:,} fast ones, {fast.refused + silent.refused} could not be made"
        )
        context.note(f"{len(silent):,} were silent at the end")
        context.check(silent.opened >= SILENT, f"only {silent.opened:,} were silent")


RESETS = 20_000


@scenario("connect and reset", f"{RESETS:,} connections reset at once, with and without a request")
def resets(context):
    """The request of a connection that is already reset has no peer address any more: the moment
    in which a server trips over what it takes for granted."""
    requests = [
        b"",
        b"G",
        request("GET", "/healthz"),
        request("GET", "/events"),
        upgrade("/ws?topic=t"),
        publish("resets", b"x" * 2000)[:-1000],
        b"\r\n",
        request("GET", "/no-such-page") * 3,
    ]
    done = failed = 0
    deadline = time.monotonic() + 40
    while done < RESETS and time.monotonic() < deadline:
        sock = socket.socket()
        try:
            sock.settimeout(5)
            sock.connect(context.address)
            data = requests[done % len(requests)]
            if data:
                sock.send(data)
        except OSError:
            failed += 1
        reset(sock)
        done += 1
    context.check(done == RESETS, f"only {done} resets in 40 s: the server holds them up")
    if failed:
        context.note(f"{failed} could not connect")
