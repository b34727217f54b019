"""What must hold for every client of event streams."""

import contextlib
import json
import time
import urllib.request

from checks import check
from driver import Skip, shorten
from relay import Relay
from rules import NAMES, RULES
from server import Server, publish, request, until
from wire import open_events


def start(context, *flags, port=0):
    return Server(context.binary, "--log", "off", *context.flags, *flags, port=port)


def several(server, count, label, **query):
    """Publishes events one after another; returns a list of (id, data)."""
    data = [f"{label} {number}" for number in range(count)]
    return [(server.publish(one, **query), one) for one in data]


def back_again(client, stream, url, last):
    """The stream that follows one that was lost: the same, where the client comes back by itself."""
    stream.expect("error")
    if not client.returns:
        stream = client.open("sse", url, last=last)
    stream.greeting()
    return stream


@check("sse", "rules of the standard")
def reads_back(context, client):
    with start(context) as server:
        stream = client.open("sse", f"{server.url}/events?topic=rules", names=NAMES)
        stream.greeting()
        wrong = {}
        count = 0
        for rule in RULES:
            query = {"topic": "rules", **({"event": rule.name} if rule.name else {})}
            if rule.read is None:
                try:
                    server.publish(rule.published, **query)
                    wrong[rule.what] = "was published"
                except RuntimeError as error:
                    assert "answered 400" in str(error), str(error)
                continue
            one = server.publish(rule.published, **query)
            found = stream.expect("event")
            # An id that is not this one's means that everything after it would be one off.
            assert found["id"] == one, f"{rule.what}: id {found['id']} instead of {one}"
            count += 1
            if (found["name"], found["data"]) != rule.wanted():
                wrong[rule.what] = (f"wanted {shorten(rule.wanted())}, got "
                                    f"{shorten((found['name'], found['data']))}")
        # What a library is known to misread it must misread: else the reason in run.py is not true.
        known = {what: wrong.pop(what, None) for what in client.misreads}
        assert not wrong, "; ".join(f"{what}: {found}" for what, found in wrong.items())
        assert all(known.values()), f"not misread: {[what for what in known if not known[what]]}"
        context.notes.append(f"{count - len(known)} events read back, {len(RULES) - count} refused")
        context.notes.extend(f"misread: {what} ({why})" for what, why in client.misreads.items())


@check("sse", "500 events in order")
def in_order(context, client):
    with start(context) as server:
        stream = client.open("sse", f"{server.url}/events?topic=a&topic=b")
        stream.greeting()
        lines = [json.dumps({"topic": "abc"[number % 3], "data": f"event {number}"})
                 for number in range(750)]
        kept = [f"event {number}" for number in range(750) if number % 3 < 2]
        status, _, answer = request(f"{server.url}/publish", "POST", "\n".join(lines),
                                    headers={"Content-Type": "application/x-ndjson"})
        assert status == 200 and json.loads(answer)["events"] == 750, answer
        found = [stream.event(name="message") for _ in kept]
        assert [event["data"] for event in found] == kept
        ids = [tuple(map(int, event["id"].split("-"))) for event in found]
        assert ids == sorted(set(ids)), "ids must rise"


@check("sse", "heartbeats are not seen")
def heartbeats(context, client):
    with start(context, "--heartbeat", "50ms") as server:
        stream = client.open("sse", f"{server.url}/events")
        stream.greeting()
        # Until another reader, of raw bytes, has seen as many comments as should have come here.
        comments(server.url, 5)
        one = server.publish("after silence")
        stream.event(name="message", data="after silence", id=one)


def comments(url, count):
    """Reads a stream until that many comments have come."""
    with urllib.request.urlopen(f"{url}/events", timeout=10) as stream:
        while count:
            line = stream.readline()
            assert line, "the stream ended"
            count -= line.startswith(b":")


@check("sse", "connection lost twice: misses nothing")
def comes_back(context, client):
    """The second time it has seen nothing but its greeting: the id in that must be its own."""
    with start(context) as server, Relay(server.port) as relay:
        url = f"{relay.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        seen = several(server, 3, "seen", topic="t")
        stream.events(seen)
        lost = time.monotonic()
        relay.cut()
        stream = back_again(client, stream, url, seen[-1][0])
        if client.returns:
            # The greeting said `retry: 2000`. A little less may be the clocks'; more is a busy machine's.
            waited = time.monotonic() - lost
            assert waited > 1.8, f"came back after {waited:.2f} s in spite of retry: 2000"
            context.notes.append(f"came back after {waited:.1f} s")
        relay.cut()
        several(server, 2, "of no concern", topic="u")
        missed = several(server, 20, "missed", topic="t")
        stream = back_again(client, stream, url, seen[-1][0])
        stream.events(missed)
        stream.events(several(server, 3, "live", topic="t"))


@check("sse", "each event is read before the next is published")
def one_at_a_time(context, client):
    """No client may hold back an event until it has more."""
    with start(context) as server:
        stream = client.open("sse", f"{server.url}/events?topic=t")
        stream.greeting()
        for data in ("small", "two\nlines", "x" * 511, "x" * 512, "x" * 5000, "grüße 🦀", "y"):
            one = server.publish(data, topic="t")
            stream.event(id=one, data=data)


@check("sse", "only greeted, then lost: misses nothing")
def only_greeted(context, client):
    """A quiet topic of a busy server: all that the client has seen is its greeting."""
    with start(context, "--history", "20") as server, Relay(server.port) as relay:
        url = f"{relay.url}/events?topic=quiet"
        stream = client.open("sse", url)
        greeted = stream.greeting()["id"]
        assert greeted, "the greeting has an id"
        relay.cut()
        several(server, 40, "of no concern", topic="busy")
        missed = several(server, 3, "missed", topic="quiet")
        stream = back_again(client, stream, url, greeted)
        stream.events(missed)


@check("sse", "missed more than is kept: gap")
def gap(context, client):
    with start(context, "--history", "5") as server, Relay(server.port) as relay:
        url = f"{relay.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        seen = several(server, 1, "seen", topic="t")
        stream.events(seen)
        relay.cut()
        missed = several(server, 12, "missed", topic="t")
        stream = back_again(client, stream, url, seen[-1][0])
        # The newest event that is lost: from it on nothing is missing.
        resumed = missed[6][0]
        found = stream.event(name="gap", id=resumed)
        assert json.loads(found["data"]) == {"resumed": resumed}, shorten(found)
        stream.events(missed[7:])


@check("sse", "server restarts: gap, then everything of the new run")
def restart(context, client):
    with start(context) as server:
        port, url = server.port, f"{server.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        seen = several(server, 3, "first run", topic="t")
        stream.events(seen)
        code = server.stop()
        assert code == 0, f"exit code {code}"
    with start(context, port=port) as server:
        early = several(server, 3, "second run", topic="t")
        stream = returned(client, stream, url, seen[-1][0])
        found = stream.event(name="gap")
        resumed = json.loads(found["data"])["resumed"]
        assert found["id"] == resumed, shorten(found)
        assert numbers(seen[-1][0]) < numbers(resumed) < numbers(early[0][0]), resumed
        stream.events(early)
        stream.events(several(server, 3, "live", topic="t"))


def returned(client, stream, url, last):
    """As `back_again`, for a server that may not have been there yet when it was tried first."""
    stream.expect("error")
    if not client.returns:
        stream = client.open("sse", url, last=last)
    while (told := stream.next(timeout=30))["is"] != "open":
        assert told["is"] == "error", shorten(told)
    found = stream.event(name="message")
    assert json.loads(found["data"])["message"] == "Connection established", shorten(found)
    return stream


@check("sse", "the server is killed: gap, then live events")
def killed(context, client):
    with start(context) as server:
        port, url = server.port, f"{server.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        seen = several(server, 3, "first run", topic="t")
        stream.events(seen)
    with start(context, port=port) as server:
        stream = returned(client, stream, url, seen[-1][0])
        found = stream.event(name="gap")
        assert numbers(json.loads(found["data"])["resumed"]) > numbers(seen[-1][0])
        stream.events(several(server, 3, "live", topic="t"))


@check("sse", "the server is full, then has room: comes back by itself")
def full(context, client):
    """Any status but 200 would end an EventSource for good (WHATWG HTML, section 9.2.3)."""
    if not client.returns:
        raise Skip("does not come back by itself")
    with start(context, "--max-clients", "1") as server:
        with urllib.request.urlopen(f"{server.url}/events", timeout=10):
            stream = client.open("sse", f"{server.url}/events")
            stream.expect("open")
            stream.expect("error")
        began = time.monotonic()
        eventually_greeted(stream)
        context.notes.append(f"back after {time.monotonic() - began:.0f} s")
        one = server.publish("x")
        stream.event(id=one, data="x")


@check("sse", "a restart that a stalled reader delays: comes back by itself")
def delayed_restart(context, client):
    if not client.returns:
        raise Skip("does not come back by itself")
    with start(context, "--drain", "6s") as server, stalled(server):
        port = server.port
        stream = client.open("sse", f"{server.url}/events?topic=t")
        stream.greeting()
        seen = several(server, 1, "first run", topic="t")
        stream.events(seen)
        began = time.monotonic()
        assert server.stop() == 0
        drained = time.monotonic() - began
        assert drained > 4, f"nobody delayed the end: {drained:.1f} s"
    with start(context, port=port) as server:
        several(server, 1, "second run", topic="t")
        errors = eventually_greeted(stream)
        # It was told to come back after 1 to 3 s, and found a server that was still draining.
        assert errors >= 2, f"{errors} attempts: not one while the server drained"
        stream.event(name="gap")
        stream.event(data="second run 0")


@contextlib.contextmanager
def stalled(server):
    """A reader that takes a few kilobytes of a long stream, and no more."""
    sock, _ = open_events(server.address, "/events?topic=long", receive_buffer=4096)
    with sock:
        for _ in range(8):
            server.publish("x" * 900_000, topic="long")
        yield


def eventually_greeted(stream):
    """Reads on until the client is greeted; returns how often it was told of an error before."""
    errors = 0
    while (told := stream.next(timeout=40))["is"] != "event":
        assert told["is"] in ("open", "error"), shorten(told)
        errors += told["is"] == "error"
    assert json.loads(told["data"])["message"] == "Connection established", shorten(told)
    return errors


def numbers(one):
    """An id as what it is compared by."""
    return tuple(map(int, one.split("-")))


@check("sse", "leaves no connection behind")
def leaves(context, client):
    with start(context) as server:
        stream = client.open("sse", f"{server.url}/events")
        stream.greeting()
        assert publish(server.url, "x")[1] == 1
        stream.event(data="x")
        stream.close()
        stream.expect("closed")
        until(lambda: publish(server.url, "y")[1] == 0, "the server notices that it has left")
