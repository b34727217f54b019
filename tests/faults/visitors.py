"""The two that keep coming while an attack goes on: a publisher, and new clients."""

import json
import threading
import time

from wire import CLOSE, exchange, frame, open_events, open_websocket, publish
from wire import request

INTERVAL = 0.05  # between two events
KINDS = ("plain", "sse", "ws")


class Publisher(threading.Thread):
    """Publishes numbered events, each over a new connection, and notes what became of each:
    'ok', 'refused' (answered, but not with 200), or 'unknown' (not answered)."""

    def __init__(self, address, topic):
        super().__init__(daemon=True)
        self.address, self.topic = address, topic
        self.source = None  # the address of ours that its connections come from
        self.outcomes = {}
        self.number = 0
        self.last = None  # the last one that is known to be published
        self.lock = threading.Lock()
        self.going = threading.Event()
        self.stopped = False
        self.going.set()

    def run(self):
        while not self.stopped:
            self.going.wait()
            with self.lock:
                if not self.stopped and self.going.is_set():
                    self.publish_one()
            time.sleep(INTERVAL)

    def publish_one(self):
        self.number += 1
        body = json.dumps({"n": self.number, "t": time.monotonic()}).encode()
        try:
            status, _ = exchange(self.address, publish(self.topic, body), 3.0, self.source)
        except OSError:
            status = None
        outcome = {200: "ok", None: "unknown"}.get(status, "refused")
        self.outcomes[self.number] = outcome
        if outcome == "ok":
            self.last = self.number

    def pause(self):
        self.going.clear()
        with self.lock:  # the one under way is done
            pass

    def resume(self):
        self.going.set()

    def stop(self):
        self.stopped = True
        self.going.set()
        self.join()


def visit(address, kind, timeout, source=None):
    """Comes as a new client and goes when it has been served. Raises OSError where it is not."""
    deadline = time.monotonic() + timeout
    if kind == "plain":
        status, answer = exchange(address, request("GET", "/healthz"), timeout, source)
        if not answer and time.monotonic() >= deadline:
            raise TimeoutError(f"no answer within {timeout:.1f} s")
        if status != 200 or b'"ok"' not in answer:
            raise ConnectionError(f"answered {answer[:40]!r}")
    elif kind == "sse":
        sock, _ = open_events(address, "/events?topic=nothing", timeout, source=source)
        sock.close()
    else:
        sock, _ = open_websocket(address, "/ws", timeout, source=source)
        try:
            sock.sendall(frame(CLOSE, b"\x03\xe8"))
        finally:
            sock.close()


def come_back(address, timeout):
    """New clients until one of each kind has been served. Returns the seconds that took, or
    None."""
    start = time.monotonic()
    for kind in KINDS:
        while True:
            left = start + timeout - time.monotonic()
            if left <= 0:
                return None
            try:
                visit(address, kind, left)
                break
            except OSError:
                time.sleep(0.02)
    return time.monotonic() - start


class Visitors(threading.Thread):
    """New clients of each kind in turn, until told to stop; notes how long each was served."""

    PATIENCE = 5.0
    PAUSE = 0.1

    def __init__(self, address, source):
        super().__init__(daemon=True)
        self.address, self.source = address, source
        self.worst = dict.fromkeys(KINDS, 0.0)
        self.served = 0
        self.failures = []
        self.ended = threading.Event()

    def run(self):
        while not self.ended.is_set():
            for kind in KINDS:
                start = time.monotonic()
                try:
                    visit(self.address, kind, self.PATIENCE, self.source)
                    self.served += 1
                    took = time.monotonic() - start
                    self.worst[kind] = max(self.worst[kind], took)
                except OSError as error:
                    self.failures.append(f"{kind}: {error or type(error).__name__}")
            self.ended.wait(self.PAUSE)

    def stop(self):
        self.ended.set()
        self.join()
        return {"worst": self.worst, "served": self.served, "failures": self.failures}
