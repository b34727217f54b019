"""Well-behaved clients: they read what comes, answer pings, and keep a record of everything."""

import json
import selectors
import threading
import time

from wire import CLOSE, PING, PONG, TEXT, Events, Frames, frame, open_events, open_websocket


class Member:
    """One connected client and what it has received."""

    def __init__(self, kind, address, topics):
        self.kind = kind
        self.ids = []
        self.numbers = []
        self.complete = {}  # how many ids there were when a number came
        self.ended = None  # how the connection ended, or None
        self.close_code = None
        self.worst = 0.0  # the longest way of an event to this client, in seconds
        if kind == "sse":
            self.sock, early = open_events(address, f"/events?{topics}", timeout=20)
            self.parser = Events()
            self.take_blocks(self.parser.feed(early))
        else:
            self.sock, early = open_websocket(address, f"/ws?{topics}", timeout=20)
            self.parser = Frames()
            self.take_frames(early)
        self.sock.setblocking(False)

    def readable(self):
        """Takes what has come. Returns whether the connection is still open."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return True
        except OSError as error:
            self.ended = f"broken: {error}"
            return False
        if not data:
            self.ended = "closed by the server"
            return False
        if self.kind == "sse":
            self.take_blocks(self.parser.feed(data))
        else:
            self.take_frames(self.parser.feed(data))
        return True

    def take_blocks(self, blocks):
        for fields in blocks:
            if "data" in fields:
                self.take_event(fields.get("id"), fields["data"])

    def take_frames(self, frames):
        for opcode, payload in frames:
            if opcode == TEXT:
                event = json.loads(payload)
                self.take_event(event["id"], event["data"])
            elif opcode == PING:
                self.sock.send(frame(PONG, payload))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
                try:
                    self.sock.send(frame(CLOSE, payload))
                except OSError:
                    pass

    def take_event(self, event_id, data):
        content = json.loads(data)
        self.ids.append(tuple(map(int, event_id.split("-"))))
        if "n" in content:
            self.numbers.append(content["n"])
            self.complete[content["n"]] = len(self.ids)
            self.worst = max(self.worst, time.monotonic() - content["t"])


class Members:
    """All of them, read by one thread."""

    def __init__(self, address, sse, websocket, topics):
        # One after another, so that they wait for nobody but the server.
        self.all = [Member("sse", address, topics) for _ in range(sse)]
        self.all += [Member("ws", address, topics) for _ in range(websocket)]
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        selector = selectors.DefaultSelector()
        for member in self.all:
            selector.register(member.sock, selectors.EVENT_READ, member)
        while not self.stopped.is_set():
            for key, _ in selector.select(0.1):
                member = key.data
                try:
                    is_open = member.readable()
                except Exception as error:  # a malformed event is a finding, not our end
                    member.ended = f"sent something malformed: {error!r}"
                    is_open = False
                if not is_open:
                    selector.unregister(member.sock)
                    member.sock.close()

    def stop(self):
        self.stopped.set()
        self.thread.join()

    def have_all(self, number):
        """Whether everyone who is still connected has this event."""
        return all(m.ended or number in m.numbers[-50:] for m in self.all)

    def wait(self, condition, timeout):
        """Polls; returns whether the condition came true in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def problems(self, outcomes, may_end):
        """What is wrong with what they received, given how each publication ended. `may_end`: the
        server was told to stop, so the connections had to end."""
        found = []
        published = {n for n, outcome in outcomes.items() if outcome == "ok"}
        unknown = {n for n, outcome in outcomes.items() if outcome == "unknown"}
        for index, member in enumerate(self.all):
            who = f"{member.kind} client {index}"
            if member.ended and not may_end:
                code = f" (close code {member.close_code})" if member.close_code else ""
                found.append(f"{who} lost its connection: {member.ended}{code}")
            got = set(member.numbers)
            lost = sorted(published - got)
            if lost:
                found.append(f"{who} lost {len(lost)} events, the first is {lost[0]}")
            if len(got) != len(member.numbers):
                found.append(f"{who} got {len(member.numbers) - len(got)} events twice")
            if any(a >= b for a, b in zip(member.ids, member.ids[1:])):
                found.append(f"{who} got events out of order")
            strange = got - published - unknown
            if strange:
                found.append(f"{who} got {len(strange)} events whose publication was refused")
        # An event whose publication was not answered, or of the server's own, may exist or not,
        # but for all alike: from the first one that the last to connect got, to the last one that
        # is known to be published.
        if not found and published:
            last = max(published)
            first = max(member.ids[0] for member in self.all)
            histories = {
                tuple(one for one in member.ids[: member.complete[last]] if one >= first)
                for member in self.all
            }
            if len(histories) > 1:
                found.append("the clients did not all get the same events")
        return found
