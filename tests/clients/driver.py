"""Speaks with the programs in drivers/ and tokio/: each is one client library, told what to do.

They read one JSON object a line: {"do": "open", "n": 1, "kind": "sse" or "ws", "url": …} makes
connection 1; text, binary (base64), ping and close act on one; publish sends a request of its own.
They write what happens, in order: {"n": 1, "is": "open"}, event, text, binary, pong, closed,
answered, error. So a check is written once, and every client goes through the same.
"""

import base64
import itertools
import json
import queue
import subprocess
import threading

TIMEOUT = 10.0
GREETING = {"message": "Connection established"}


class Skip(Exception):
    """A check cannot be run here; the message says why."""


class Connection:
    """One connection of a client's: what it is told and what it tells."""

    def __init__(self, driver, number):
        self.driver, self.number = driver, number
        self.told = queue.Queue()

    def tell(self, do, **rest):
        self.driver.tell({"do": do, "n": self.number, **rest})

    def next(self, timeout=TIMEOUT):
        try:
            return self.told.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"nothing more within {timeout:.0f} s") from None

    def expect(self, what, timeout=TIMEOUT, **fields):
        """The next thing must be this, with these fields."""
        found = self.next(timeout)
        wanted = {"is": what, **fields}
        seen = {name: found.get(name) for name in wanted}
        assert seen == wanted, f"wanted {shorten(wanted)}, got {shorten(found)}"
        return found

    def event(self, **fields):
        """The next thing must be this event of a stream."""
        return self.expect("event", **fields)

    def events(self, published):
        """The next events must be these, a list of (id, data), in order."""
        found = [self.event() for _ in published]
        seen = [(event["id"], event["data"]) for event in found]
        assert seen == published, f"wanted {shorten(published)}, got {shorten(seen)}"

    def greeting(self):
        """An event stream begins so."""
        self.expect("open")
        found = self.event(name="message")
        assert json.loads(found["data"]) == GREETING, shorten(found)
        return found

    def json(self):
        """The next thing must be a text that is JSON."""
        return json.loads(self.expect("text")["data"])

    def welcome(self):
        """A WebSocket on /ws begins so. Returns what was negotiated."""
        opened = self.expect("open")
        told = self.json()
        seen = told.pop("lastEventId", None)
        assert told == {"type": "info", "message": "Welcome to WS Server"}, shorten(told)
        return {**opened, "lastEventId": seen}

    def ws_events(self, published, topic):
        """The next messages must be these events, a list of (id, data), in order."""
        found = [self.json() for _ in published]
        wanted = [{"type": "event", "id": one, "topic": topic, "event": "message", "data": data}
                  for one, data in published]
        assert found == wanted, f"wanted {shorten(wanted)}, got {shorten(found)}"

    def send(self, payload):
        """Sends text or bytes."""
        if isinstance(payload, str):
            self.tell("text", data=payload)
        else:
            self.tell("binary", data=base64.b64encode(payload).decode())

    def echoed(self, payload):
        """The next thing must be this text, or these bytes."""
        if isinstance(payload, str):
            found = self.expect("text")["data"]
        else:
            found = base64.b64decode(self.expect("binary")["data"])
        assert found == payload, f"wanted {shorten(payload)}, got {shorten(found)}"

    def close(self, code=1000, reason=""):
        self.tell("close", code=code, reason=reason)


class Driver:
    """A client library in a process of its own.

    `returns`: its event streams come back by themselves. `lacks`: the checks it has no means for,
    and why. `misreads`: what it reads otherwise than the standard says (`Rule.what`), and why.
    """

    def __init__(self, name, kinds, command, environment=None, returns=False, lacks=None,
                 misreads=None, log=subprocess.DEVNULL):
        self.name, self.kinds, self.returns = name, kinds, returns
        self.lacks, self.misreads = lacks or {}, misreads or {}
        self.numbers = itertools.count(1)
        self.connections = {0: Connection(self, 0)}
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            told = json.loads(line)
            self.connections[told["n"]].told.put(told)
        for connection in self.connections.values():
            connection.told.put({"is": "gone", "detail": "the client's process has ended"})

    def tell(self, command):
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except OSError as error:
            raise AssertionError(f"the client's process has ended: {error}") from error

    def open(self, kind, url, names=(), last=None, protocols=(), deflate=False):
        """A new connection. `names`: of the events to listen for, besides message and gap."""
        connection = Connection(self, next(self.numbers))
        self.connections[connection.number] = connection
        if kind == "page":
            connection.tell("visit", url=url)
            return connection
        if kind == "ws":
            url = url.replace("http", "ws", 1)
        connection.tell("open", kind=kind, url=url, names=list(names), last=last,
                        protocols=list(protocols), deflate=deflate)
        return connection

    def session(self):
        """What publishes: its requests may share a connection."""
        connection = Connection(self, next(self.numbers))
        self.connections[connection.number] = connection
        return connection

    def end(self):
        """Ends the process: with its input it ends itself, or else it is killed."""
        try:
            self.process.stdin.close()
            self.process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def shorten(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]} … {text[-200:]}"
