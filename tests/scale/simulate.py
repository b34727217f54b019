"""What a million clients take, from figures that were measured with thousands: the tables of the book's chapter
on scale (src/docs/scale.md). Prints them; `--check` also compares the models with queueing theory, the measured
figures with src/docs/measured.md, and the tables with the chapter, and fails where something is not so."""

import heapq
import math
import random
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "src" / "docs"

# Measured: value, and the text of measured.md that it stands in.
MEASURED = {
    "delivery_us": (6.3, "| the same for 5,000 clients: µs | 6.3 |"),
    "best_per_s": (10.8e6, "deliveries/s | 10.8 M |"),
    "connect_us": (162, "| 5,000 SSE clients, one after another: µs of CPU each | 162 |"),
    "connect_ms": (383, "| 5,000 SSE clients, 100 at once: ms | 383 |"),
    "sse_kib": (13 + 24, "| idle SSE client: KiB resident + kernel | 13 + 24 |"),
    "websocket_kib": (16 + 27, "| idle WebSocket client | 16 + 27 |"),
    "start_mib": (4.1, "| at the start | 4.1 MiB resident"),
}
M = {name: value for name, (value, _) in MEASURED.items()}

# A write to one client costs A + B for each event in it: two measured points, one event a write, and batches of
# MAX_BATCH as fast as two cores go.
MAX_BATCH = 64
B = (2e6 / M["best_per_s"] - M["delivery_us"] / MAX_BATCH) / (1 - 1 / MAX_BATCH)
A = M["delivery_us"] - B
CONNECTS = 5000 / M["connect_ms"] * 1000
LISTEN_QUEUE = 4096

# Assumed, not measured. Redis: one publishing script, one reply to a reader, and each event in a reply.
SCRIPT_US, REPLY_US, ENTRY_US = 20, 10, 1
READ_US = 10  # a server reads an event from Redis and wakes its broadcasters
DATA, FRAME, PACKET = 300, 45, 78  # bytes: an event's data, its id and field names, one TCP/IP packet's heads
CORES, SERVERS, MILLION = 4, 20, 1_000_000


def poisson(rate, seconds, seed=1):
    """Random times of arrival."""
    chance, now, times = random.Random(seed), 0.0, []
    while (now := now - math.log(1 - chance.random()) / rate) < seconds:
        times.append(now)
    return times


def serve(arrivals, seconds_for, limit):
    """A server that takes all that waits, up to a limit, and is busy with it for `seconds_for(count)`. When
    each arrival was done, and for how long the server was busy."""
    done, busy, now, place = [], 0.0, 0.0, 0
    while place < len(arrivals):
        now, count = max(now, arrivals[place]), 1
        while place + count < len(arrivals) and count < limit and arrivals[place + count] <= now:
            count += 1
        spent = seconds_for(count)
        now, busy, place = now + spent, busy + spent, place + count
        done += [now] * count
    return done, busy


def fan_out(rate, clients, servers=SERVERS, cores=CORES, seconds=120):
    """Events for all clients, through one Redis stream: latency until the last client has one, and how busy the
    broadcasters and Redis are. All broadcasters have as many clients, so one stands for all."""
    times = poisson(rate, seconds)
    read, redis = serve(times, redis_seconds(servers), 1000)
    share = clients / servers / cores
    done, busy = serve(read, lambda n: (n * READ_US + share * (A + B * n)) / 1e6, MAX_BATCH)
    late = sorted(end - start for start, end in zip(times, done))
    return {
        "p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "longest": late[-1],
        "busy": busy / max(seconds, done[-1]), "redis": redis / max(seconds, read[-1]), "events": len(done),
    }


def redis_seconds(servers):
    return lambda n: (n * SCRIPT_US + servers * (REPLY_US + n * ENTRY_US)) / 1e6


def storm(clients, survivors, spread, seed=1, queue=LISTEN_QUEUE):
    """Clients come back, over a time, to servers chosen at random. A connection that finds the listen queue
    full is tried again by the client's system after 1, 2, 4… s, and from the beginning after 64 s."""
    chance = random.Random(seed)
    coming = [(chance.random() * spread, 1, chance.randrange(survivors)) for _ in range(clients)]
    heapq.heapify(coming)
    free, waiting = [0.0] * survivors, [[] for _ in range(survivors)]
    last, longest, refused = 0.0, 0, 0
    while coming:
        now, again, server = heapq.heappop(coming)
        queued = waiting[server]
        while queued and queued[0] <= now:
            heapq.heappop(queued)
        if len(queued) >= queue:
            heapq.heappush(coming, (now + again + chance.random() * 0.1, again * 2 if again < 64 else 1, server))
            refused += 1
            continue
        free[server] = max(free[server], now) + 1 / CONNECTS
        heapq.heappush(queued, free[server])
        last, longest = max(last, free[server]), max(longest, len(queued))
    return {"last": last, "longest": longest, "refused": refused}


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def clients_table():
    yield row("clients a server", "servers", "memory each: SSE", "WebSocket", "until the last has an event")
    for each in (10_000, 50_000, 200_000):
        alone = each / CORES * M["delivery_us"] / 1e3
        memory = [each * M[kind] / 2**20 + M["start_mib"] / 2**10 for kind in ("sse_kib", "websocket_kib")]
        yield row(f"{each:,}", MILLION // each, *(f"{one:.1f} GiB" for one in memory), f"{alone:.0f} ms")


def fan_out_table():
    yield row("events/s", "p50", "p99", "longest", "cores busy", "Redis busy", "Gbit/s a server", "in all")
    for rate in (0.1, 1, 5, 10, 20, 50):
        found = fan_out(rate, MILLION, seconds=1200 / rate if rate < 5 else 240)
        late = [f"{found[name] * 1000:.0f} ms" for name in ("p50", "p99", "longest")]
        gigabits = rate * MILLION * (DATA + FRAME + PACKET) * 8 / 1e9
        busy = [f"{found[name]:.0%}" if found[name] >= 0.01 else "< 1%" for name in ("busy", "redis")]
        yield row(number(rate), *late, *busy, number(gigabits / SERVERS), number(gigabits))


def streams_table():
    yield row("events/s", "servers", "Redis busy and p99: one stream", "each of 16", "a server's core, for reading")
    for rate in (1_000, 5_000, 20_000):
        for servers in (3, 20):
            busy = []
            for times in (poisson(rate, 5), poisson(rate / 16, 5)):
                done, spent = serve(times, redis_seconds(servers), 1000)
                late = sorted(end - start for start, end in zip(times, done))[len(done) * 99 // 100]
                busy.append(f"{spent / 5:.0%}, {late * 1000:.1f} ms")
            yield row(f"{rate:,}", servers, *busy, f"{rate * READ_US / 1e6:.0%}")


def storm_table():
    yield row("clients", "survivors", "spread", "the last is back after", "CPU a survivor", "queued", "tried again, in all")
    for clients, survivors, spread in (
        (50_000, 19, 0.1), (50_000, 19, 2), (50_000, 19, 60), (50_000, 2, 0.1), (50_000, 1, 0.1), (50_000, 1, 60),
    ):
        found = storm(clients, survivors, spread)
        cpu = clients / survivors * M["connect_us"] / 1e6
        yield row(f"{clients:,}", survivors, f"{spread} s", f"{found['last']:.1f} s", f"{cpu:.2f} s",
                  f"{found['longest']:,}", f"{found['refused']:,}")


def tables():
    for title, table in (("Clients", clients_table), ("One topic", fan_out_table), ("Streams", streams_table),
                         ("Storms", storm_table)):
        yield title, list(table())


def problems():
    """What is not as it must be."""
    # One event at a time and a constant service time: Pollaczek and Khinchine say how long an M/D/1 queue is.
    for load in (0.2, 0.5, 0.8):
        times = poisson(load, 300_000)
        done, busy = serve(times, lambda _: 1.0, 1)
        found = sum(end - start for start, end in zip(times, done)) / len(times)
        wanted = 1 + load / (2 * (1 - load))
        if abs(found / wanted - 1) > 0.05 or abs(busy / 300_000 / load - 1) > 0.02:
            yield f"a queue at load {load} takes {found:.2f}, theory says {wanted:.2f}"
    # Batches of everything that waits keep up with any rate below that of the largest batch.
    one, batch = A + B, (A + B * MAX_BATCH) / MAX_BATCH
    if abs(one - M["delivery_us"]) > 1e-9 or abs(batch - 2e6 / M["best_per_s"]) > 1e-9 or not 0 < B < A:
        yield f"a write costs {A:.2f} + {B:.3f} an event: not the measured points"
    quiet = fan_out(0.01, MILLION, seconds=10_000)
    alone = MILLION / SERVERS / CORES * M["delivery_us"] / 1e6
    if not alone <= quiet["p50"] < 1.05 * alone:
        yield f"a quiet server takes {quiet['p50']:.3f} s for an event, not {alone:.3f}"
    # Everybody comes back, not faster than connections are accepted, and not before the spread is over.
    for clients, survivors, spread in ((4_000, 1, 0), (20_000, 4, 10), (60_000, 1, 0.1)):
        found = storm(clients, survivors, spread)
        if found["last"] < max(clients / survivors / CONNECTS, 0.99 * spread) or found["longest"] > LISTEN_QUEUE:
            yield f"a storm of {clients} is over after {found['last']:.1f} s, {found['longest']} queued"
    measured, chapter = ((DOCS / name).read_text() for name in ("measured.md", "scale.md"))
    for name, (value, text) in MEASURED.items():
        if text not in measured:
            yield f"measured.md does not say {text!r} any more: see {name} = {value}"
    for title, lines in tables():
        for line in lines:
            if line not in chapter:
                yield f"scale.md, {title}: not there is {line}"


if __name__ == "__main__":
    for title, lines in tables():
        head, *rest = lines
        print(f"\n{title}\n\n{head}\n|{'---|' * (head.count('|') - 1)}", *rest, sep="\n")
    if "--check" in sys.argv[1:]:
        found = list(problems())
        print("", *(found or ["all checks passed"]), sep="\n")
        sys.exit(1 if found else 0)
