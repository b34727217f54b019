"""Clients that stop reading, that vanish, and a server that is stopped itself."""

import json
import os
import select
import signal
import time

from frame import poll, scenario
from namespaces import SERVER, entered, inside
from wire import PONG, Events, exchange, frame, open_events, open_websocket, publish, request

STALLED = 100
HISTORY = 20


@scenario(
    "stalled readers",
    f"{STALLED} clients that stop reading while 64 KiB events are published",
    # A short history, or what it rightly keeps would look like a leak.
    flags=("--history", str(HISTORY)),
    peak=96,
)
def stalled(context):
    """Each is disconnected when it is too far behind, and nobody else waits for it."""
    address = context.address
    socks = []
    try:
        for number in range(STALLED):
            make, path = [(open_events, "/events"), (open_websocket, "/ws")][number % 2]
            sock, _ = make(address, f"{path}?topic=big", timeout=10, receive_buffer=4096)
            socks.append(sock)
        publish_until_gone(context, b"x" * (64 << 10))
        # What the history keeps of them goes when others come.
        for _ in range(HISTORY):
            exchange(context.address, publish("small", b"x"))
    finally:
        for sock in socks:
            sock.close()


def publish_until_gone(context, body):
    """The kernel's buffers take some MiB for each client before the server notices anything; one
    that is given up then has five seconds to take its last words."""
    request = publish("big", body)
    count, slowest, left = 0, 0.0, STALLED
    start = time.monotonic()
    while left and time.monotonic() < start + 20:
        sent = time.monotonic()
        status, answer = exchange(context.address, request, 10)
        slowest = max(slowest, time.monotonic() - sent)
        count += 1
        if status != 200:
            context.fail(f"event {count} of 64 KiB was answered {answer[:60]!r}")
        else:
            left = json.loads(answer.partition(b"\r\n\r\n")[2])["subscribers"]
        if count >= 500:
            time.sleep(0.05)
    took = time.monotonic() - start
    context.note(f"{STALLED - left} gone after {count} events, {took:.1f} s")
    context.note(f"the slowest publication took {slowest * 1000:.0f} ms")
    context.check(left == 0, f"{left} of {STALLED} stalled clients are still subscribed")
    context.check(slowest < 1.0, f"a publication had to wait {slowest:.2f} s for stalled clients")


PAUSE = 22
FEW_EVENTS = 14
# What has to wait in the server: more than the kernel takes for a connection.
QUEUED_BYTES = 900_000


@scenario(
    "paused readers",
    f"4 SSE clients that read nothing for {PAUSE} s: 0.9 MB is sent to two, and queued for two",
    flags=("--history", str(HISTORY)),
)
def paused(context):
    """Longer than a heartbeat: their kernels still answer, so they are slow, not gone. Each goes on
    reading where it stopped."""
    address, body = context.address, b"x" * (64 << 10)
    readers = []
    try:
        for topics in ("topic=few", "topic=few&topic=more") * 2:
            readers.append(open_events(address, f"/events?{topics}", receive_buffer=4096)[0])
        few, more = FEW_EVENTS, 0
        for number in range(few):
            exchange(address, publish("few", b"%d " % number + body))
        # The kernel takes some MiB before anything has to wait in the server.
        while backlog(address) < 2 * QUEUED_BYTES and more < 100:
            exchange(address, publish("more", b"%d " % (few + more) + body))
            more += 1
        queued = backlog(address)
        context.note(f"{few} events for two, {few + more} for the others, {queued:,} bytes queued")
        context.check(queued >= 2 * QUEUED_BYTES, f"only {queued:,} bytes were queued")
        time.sleep(PAUSE)
        for sock, count in zip(readers, (few, few + more) * 2):
            came = read_events(sock, count, time.monotonic() + 10)
            context.check(came == list(range(count)), f"after the pause events {came} came")
        context.check(poll(lambda: backlog(address) == 0, 5), "the queue is not empty")
        # What the history keeps of them goes when others come.
        for _ in range(HISTORY):
            exchange(address, publish("small", b"x"))
    finally:
        for sock in readers:
            sock.close()


def read_events(sock, count, deadline):
    """The numbers of the events that come, or a text that says how they ended early."""
    events, numbers = Events(), []
    while len(numbers) < count and (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            data = sock.recv(1 << 16)
        except OSError as error:
            return f"{numbers}, then {error}"
        if not data:
            return f"{numbers}, then the end"
        numbers += [int(f["data"].split()[0]) for f in events.feed(data) if "x" in f.get("data", "")]
    return numbers


def backlog(address):
    """The bytes that wait in the server for all clients together."""
    _, answer = exchange(address, request("GET", "/stats"))
    return json.loads(answer.partition(b"\r\n\r\n")[2])["backlogBytes"]


@scenario(
    "stopped and continued",
    "the server's process is stopped for 0.8 s, three times",
    flags=("--ping", "1s"),
    within=2.0,
)
def stopped(context):
    """As after Ctrl-Z and `fg`, or a laptop's sleep: blocked system calls with a timeout return
    early (EINTR) then. That must not look like a broken connection, nor like a client that has
    been silent for too long."""
    pid = context.server.pid
    for _ in range(3):
        os.kill(pid, signal.SIGSTOP)
        try:
            poll(lambda: state_of(pid) == "T", 2)
            time.sleep(0.8)
        finally:
            os.kill(pid, signal.SIGCONT)
        # A different moment between two pings each time.
        time.sleep(0.35)
    # Whoever is taken for silent is dropped within two pings.
    time.sleep(2.2)


def state_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def client_threads(server, peer):
    """The clients of this address that the server still has, as its threads' names tell."""
    names = server.thread_names()
    # The kernel keeps 15 bytes of a name.
    return {
        kind: sum(name.startswith(f"{kind} {peer}"[:15]) for name in names)
        for kind in ("sse", "ws")
    }


HALF_OPEN = 20


@scenario(
    "half-open clients",
    f"{HALF_OPEN} SSE and {HALF_OPEN} WebSocket clients behind a network link that goes down",
    flags=("--heartbeat", "2s", "--ping", "2s"),
    namespace=inside,
)
def half_open(context):
    """Gone within two heartbeats and five seconds, with and without events to trip over."""
    server, cable = context.server, context.options["cable"]
    peer = "10.203"  # the first bytes of the far address; more do not fit into a thread's name
    limit = 2 * 2 + 5
    socks = []
    with entered(cable.far):
        for _ in range(HALF_OPEN):
            address = (SERVER, server.address[1])
            socks.append(open_events(address, "/events?topic=none")[0])
            # To every second one there will be more on its way than its socket takes.
            topic = "behind" if len(socks) % 4 == 1 else "none"
            socks.append(open_websocket(address, f"/ws?topic={topic}")[0])
    try:
        expected = {"sse": HALF_OPEN, "ws": HALF_OPEN}
        found = {}

        def all_there():
            # The one look that counts: the kernel's list of threads may leave one out while another
            # one ends.
            found.update(client_threads(server, peer))
            return found == expected

        poll(all_there, 3)
        context.check(found == expected, f"before the link went down there were {found}")
        # Whoever does not answer pings would be dropped for that reason, link or no link.
        answer_pings(socks[1::2], 0.2)
        start = time.monotonic()
        cable.pull()
        for _ in range(8):
            exchange(context.address, publish("behind", b"x" * (64 << 10)))
        gone = {}

        def all_gone():
            left = client_threads(server, peer)
            for kind, count in left.items():
                if count == 0:
                    gone.setdefault(kind, time.monotonic() - start)
            return not any(left.values())

        # A second more than promised, for a busy machine's sake.
        poll(all_gone, limit + 10)
        for kind in ("sse", "ws"):
            if kind not in gone:
                left = client_threads(server, peer)[kind]
                context.fail(f"{left} half-open {kind} clients are there after {limit + 10} s")
            else:
                context.note(f"{kind} gone after {gone[kind]:.1f} s (limit {limit} s)")
                context.check(
                    gone[kind] <= limit + 1, f"half-open {kind} found after {gone[kind]:.1f} s"
                )
    finally:
        cable.plug()
        for sock in socks:
            sock.close()


@scenario(
    "interrupted link",
    "2 SSE and 2 WebSocket clients that take one long event, slowly; their network link is down for 3 s",
    flags=("--max-message", "4MiB", "--history", "1"),
    namespace=inside,
    alone=True,
)
def interrupted(context):
    """Just when the server asks the system whether they are still there, data is being sent again.
    They have taken some since it asked last, and take the rest."""
    cable = context.options["cable"]
    socks = []
    with entered(cable.far):
        for make, path in [(open_events, "/events"), (open_websocket, "/ws")] * 2:
            address = (SERVER, context.server.address[1])
            socks.append(make(address, f"{path}?topic=long", receive_buffer=8192)[0])
    try:
        exchange(context.address, publish("long", b"x" * (3 << 20)))
        # The server asks 15 s after it began to write.
        read_slowly(socks, 13.5)
        cable.pull()
        read_slowly(socks, 3)
        cable.plug()
        # What the kernel has already would still come to a client that was dropped.
        left = client_threads(context.server, "10.203")
        context.check(left == {"sse": 2, "ws": 2}, f"of 2 and 2 clients are left {left}")
    finally:
        cable.plug()
        for sock in socks:
            sock.close()
    # What the history keeps of it goes when another comes.
    exchange(context.address, publish("small", b"x"))


def read_slowly(socks, seconds):
    """Reads up to 2 KiB of each every 50 ms."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sock in select.select(socks, [], [], 0.05)[0]:
            sock.recv(2048)
        time.sleep(0.05)


def answer_pings(socks, seconds):
    """Reads what comes for a moment. (A ping is answered with the same, unmasked zeros.)"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for sock in select.select(socks, [], [], 0.05)[0]:
            if sock.recv(4096):
                sock.sendall(frame(PONG))
