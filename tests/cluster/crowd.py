"""The clients and the publishers: one asyncio loop in a thread of its own, so that 600 clients cost little
and the scenario may wait while they go on.

A client wanders: it drops its connection after a random time and comes back to any server, through any
proxy or none, with the last id that it has seen. It keeps a log of every event. A publisher numbers its
events, and sends each until it is acknowledged, always with the same `Idempotency-Key`.
"""

import asyncio
import collections
import contextlib
import json
import random
import threading
import time
import uuid

import wire
from verify import GAP, Acknowledged, Entry, Log

TOPIC = "t"
# A connection lives for this many seconds on average, then its client comes back elsewhere.
MEAN_LIFETIME = 4.0
# How long a client waits for a greeting, and a publisher for an answer, before trying elsewhere.
GREETING_TIMEOUT = 3.0
ANSWER_TIMEOUT = 4.0
# The longest pause before a client connects again.
MAX_PAUSE = 0.4
# Seconds between an acknowledgement and the publisher's next request.
INTERVAL = 0.12
# Every so many requests the publisher leaves without waiting for the answer, and asks again.
LEAVES_ONE_IN = 12
NDJSON_LINES = 4


class Refused(Exception):
    """A server or a proxy answered with something else than a stream."""


class Client:
    """One client: its log lasts, its connections do not."""

    def __init__(self, crowd, kind, number):
        self.crowd, self.kind = crowd, kind
        self.log = Log(f"{kind} {number}")
        # An address of its own: proxies choose a server by it.
        self.source = f"127.1.{number // 200}.{number % 200 + 1}"
        self.last = None  # the last id, as text, as it came
        self.cookies = {}  # by proxy: which server it was sent to
        self.visits = self.failures = 0

    async def live(self):
        """Comes and goes until the crowd is told to end."""
        await asyncio.sleep(random.uniform(0, 1))
        while not self.crowd.ended:
            try:
                await self.visit(random.choice(self.crowd.routes))
            except (OSError, EOFError, Refused, asyncio.LimitOverrunError):
                self.failures += 1
            await asyncio.sleep(random.uniform(0, MAX_PAUSE))

    async def visit(self, route):
        """One connection, from its request to its end."""
        reader, writer = None, None
        try:
            # 1. Nobody may keep it waiting: a server that is stopped accepts, and says nothing.
            async with asyncio.timeout(GREETING_TIMEOUT):
                reader, writer = await asyncio.open_connection(
                    *route.address, local_addr=(self.source, 0))
                writer.write(self.request(route))
                head = await reader.readuntil(b"\r\n\r\n")
                self.check(head, route)
                parser = wire.Events() if self.kind == "sse" else wire.Frames()
                greeted = False
                while not greeted:
                    data = await reader.read(65536)
                    if not data:
                        raise ConnectionError("closed before the greeting")
                    greeted = self.take(parser.feed(data), writer)
            self.visits += 1
            # 2. It stays for a while, or until the server ends it.
            self.crowd.leave_later(self, writer.transport)
            while data := await reader.read(65536):
                self.take(parser.feed(data), writer)
                # A proxy keeps the connection when the server has ended the stream.
                if self.kind == "sse" and parser.is_whole:
                    return
        finally:
            if writer:
                writer.transport.abort()

    def request(self, route):
        target = f"{'/events' if self.kind == 'sse' else '/ws'}?topic={TOPIC}"
        fields = [f"Cookie: {self.cookies[route]}"] if route in self.cookies else []
        if self.last and self.kind == "sse" and random.random() < 0.5:
            fields.append(f"Last-Event-ID: {self.last}")
        elif self.last:
            target += f"&last_event_id={self.last}"
        return wire.request("GET", target, *fields) if self.kind == "sse" else wire.upgrade(
            target, *fields)

    def check(self, head, route):
        if wire.status_of(head) != (200 if self.kind == "sse" else 101):
            raise Refused(head[:40])
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "set-cookie":
                self.cookies[route] = value.partition(";")[0]

    def take(self, pieces, writer):
        """Notes what has come. Returns whether it has been greeted."""
        return self.take_blocks(pieces) if self.kind == "sse" else self.take_frames(pieces, writer)

    def take_blocks(self, blocks):
        for block in blocks:
            self.take_event(block.get("id"), block.get("event"), block.get("data"))
        return bool(blocks)

    def take_frames(self, frames, writer):
        for opcode, payload in frames:
            if opcode == wire.TEXT:
                message = json.loads(payload)
                if message["type"] == "info":
                    self.take_event(message.get("lastEventId"), None, None)
                elif message["type"] == "event":
                    self.take_event(message["id"], message["event"], message["data"])
            elif opcode == wire.PING:
                writer.write(wire.frame(wire.PONG, payload))
            elif opcode == wire.CLOSE:
                writer.write(wire.frame(wire.CLOSE, payload[:2]))
        return bool(frames)

    def take_event(self, event_id, name, data):
        """An event, a gap, or the greeting; each sets the id to come back with, as in EventSource."""
        if event_id:
            self.last = event_id
        content = json.loads(data) if data else {}
        if name == "gap":
            self.log.entries.append(Entry(number_of(content["resumed"]), GAP, time.monotonic()))
        elif "n" in content:
            key = (content["p"], content["n"])
            self.log.entries.append(Entry(number_of(event_id), key, time.monotonic()))
        elif self.log.start is None and event_id:
            self.log.start, self.log.started_at = number_of(event_id), time.monotonic()

    def newest(self):
        """The newest id in its log."""
        entries = self.log.entries
        return entries[-1].id if entries else self.log.start or (0, 0)


class Publisher:
    """Publishes numbered events, one request after another, and logs what was acknowledged."""

    def __init__(self, crowd, name, lines=1):
        self.crowd, self.name, self.lines = crowd, name, lines
        self.run = uuid.uuid4().hex[:8]  # the keys of another run are others
        self.next = 1
        self.acknowledged, self.attempts = {}, {}
        self.answers = collections.Counter()
        self.problems = []
        self.idle = True

    async def live(self):
        while not self.crowd.ended:
            if self.crowd.publishing:
                self.idle = False
                await self.publish()
            self.idle = True
            await asyncio.sleep(INTERVAL * random.uniform(0.5, 1.5))

    async def publish(self):
        """The next numbers, sent until they are acknowledged."""
        numbers = list(range(self.next, self.next + self.lines))
        self.next += self.lines
        while not self.crowd.ended:
            for number in numbers:
                self.attempts[self.name, number] = self.attempts.get((self.name, number), 0) + 1
            status, answer = await self.attempt(random.choice(self.crowd.publish_routes), numbers)
            self.answers[status] += 1
            if status == 200:
                return self.note(numbers, answer)
            await asyncio.sleep(random.uniform(0.05, 0.25))

    def note(self, numbers, answer):
        # Of several events only the last one's id is told.
        for number in numbers:
            self.acknowledged[self.name, number] = Acknowledged(
                upper=number_of(answer["id"]), exact=number == numbers[-1])

    async def attempt(self, route, numbers):
        """One request. Returns (status or why there is none, the answer)."""
        writer = None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                reader, writer = await asyncio.open_connection(*route.address)
                writer.write(self.request(numbers))
                if self.crowd.leaves and random.randrange(LEAVES_ONE_IN) == 0:
                    # Before or after the server has read it, nobody knows.
                    await asyncio.sleep(random.uniform(0, 0.01))
                    return "left", None
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        except TimeoutError:
            return "late", None
        except OSError:
            return "failed", None
        finally:
            if writer:
                writer.transport.abort()
        status = wire.status_of(head)
        if status == 503 and route.is_direct and b"\r\nRetry-After: " not in head:
            self.problems.append(f"503 without Retry-After: {body[:120]!r}")
        if status is not None and route.is_direct and status not in (200, 503, 507):
            self.problems.append(f"publishing was answered {status}: {body[:120]!r}")
        return (status, json.loads(body)) if status == 200 else (status or "failed", None)

    def request(self, numbers):
        events = [json.dumps({"p": self.name, "n": number}) for number in numbers]
        keys = [f"{self.run}-{self.name}-{number}" for number in numbers]
        target = f"/publish?topic={TOPIC}"
        if self.lines == 1:
            key = f'Idempotency-Key: "{keys[0]}"'
            return wire.request("POST", target, key, body=events[0].encode(), close=True)
        lines = [json.dumps({"data": event, "key": key}) for event, key in zip(events, keys)]
        return wire.request("POST", target, "Content-Type: application/x-ndjson",
                            body="\n".join(lines).encode(), close=True)


class Crowd:
    """All of them, and the thread that runs them. Its methods are for the scenario's thread."""

    def __init__(self, routes, sse=300, websocket=300, leaves=True):
        self.routes = routes
        self.publish_routes = routes
        self.leaves = leaves  # whether publishers leave without their answer now and then
        self.publishing = self.settled = self.ended = False
        kinds = ["sse"] * sse + ["ws"] * websocket
        self.clients = [Client(self, kind, number) for number, kind in enumerate(kinds)]
        self.publishers = [Publisher(self, "a"), Publisher(self, "b"),
                           Publisher(self, "c", lines=NDJSON_LINES)]
        self.unacknowledged = set()  # what others have published: (publisher, number)
        self.problems = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended = True
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self.loop.call_soon_threadsafe(self.cancel)
        self.thread.join(10)

    def run(self):
        self.loop.run_until_complete(self.main())
        self.loop.close()

    async def main(self):
        self.tasks = [asyncio.create_task(one.live()) for one in self.clients + self.publishers]
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            # A malformed event is a finding, and so is a fault of this harness.
            if isinstance(result, Exception):
                self.problems.append(f"a client or publisher ended: {result!r}")

    def cancel(self):
        for task in self.tasks:
            task.cancel()

    def leave_later(self, client, transport):
        """Drops a client's connection after a random time, unless all have to stay by then."""
        def leave():
            if not self.settled:
                transport.abort()

        self.loop.call_later(random.expovariate(1 / MEAN_LIFETIME), leave)

    def started(self):
        return all(client.log.start is not None for client in self.clients)

    def acknowledged(self):
        """By (publisher, number)."""
        every = {}
        for publisher in self.publishers:
            every.update(publisher.acknowledged)
        return every

    def attempts(self):
        every = dict.fromkeys(self.unacknowledged, 1)
        for publisher in self.publishers:
            every.update(publisher.attempts)
        return every

    def answers(self):
        """How many requests of the publishers had which answer."""
        return sum((publisher.answers for publisher in self.publishers), collections.Counter())

    def visits(self):
        return sum(client.visits for client in self.clients)

    def pause(self, timeout=10.0):
        """No more events; waits until those under way are acknowledged. Returns whether they are."""
        self.publishing = False
        time.sleep(0.05)  # for one that is about to begin
        return self.wait(lambda: all(publisher.idle for publisher in self.publishers), timeout)

    def settle(self, timeout=15.0):
        """From here on clients stay where they are; waits until each has the newest event."""
        self.settled = True
        newest = max((one.upper for one in self.acknowledged().values()), default=(0, 0))
        return self.wait(lambda: all(one.newest() >= newest for one in self.clients), timeout)

    def wait(self, condition, timeout):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline or not self.thread.is_alive():
                return False
            time.sleep(0.05)
        return True


def number_of(event_id):
    """`<milliseconds>-<sequence>` as a pair that compares as ids do."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence)
