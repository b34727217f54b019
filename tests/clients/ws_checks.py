"""What must hold for every WebSocket client."""

import json
import re

from checks import check
from driver import Skip, shorten
from server import request, until
from sse_checks import numbers, several, start
from wire import open_websocket

# Around the lengths where a frame's header grows, and texts that are not only ASCII.
PAYLOADS = ["", "a", "é € 𝄞 \0 \u2028", "x" * 125, "x" * 126, "€" * 21_845, "x" * 65_535, "x" * 65_536,
            "€" * 300_000, b"", b"\0\xff\r\n", bytes(range(256)) * 256, b"\x80" * 1_000_000]


@check("ws", "welcome and answers")
def talks(context, client):
    with start(context) as server:
        for path in ("/ws", "/"):
            socket = client.open("ws", server.url + path)
            socket.welcome()
            for text in ('hello "you"', "", "é\n\u2028\0", '{"a":1}'):
                socket.send(text)
                answer = socket.json()
                processed = answer.pop("processedAt")
                assert answer == {"type": "response", "original": text}, shorten(answer)
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", processed), processed
            socket.send(b"\0\xff binary")
            socket.echoed(b"\0\xff binary")
            socket.close()
            socket.expect("closed", code=1000)


@check("ws, without an end", "welcome without another word")
@check("ws", "welcome without another word")
def welcomed(context, client):
    """Nothing follows the first message, so that whoever has put it aside never looks at it again."""
    with start(context) as server:
        for path in ("/ws", "/", "/ws?topic=t") * 10:
            client.open("ws", server.url + path).welcome()


def echo_all(socket):
    """Everything at once, so that answers have to wait for each other, then one after another."""
    for payload in PAYLOADS:
        socket.send(payload)
    for payload in PAYLOADS:
        socket.echoed(payload)
    for payload in PAYLOADS:
        socket.send(payload)
        socket.echoed(payload)


@check("ws", "echo of every length")
def echoes(context, client):
    with start(context) as server:
        socket = client.open("ws", f"{server.url}/echo")
        opened = socket.expect("open")
        assert "permessage-deflate" not in opened["extensions"] or context.compresses, opened
        echo_all(socket)
        socket.close()
        socket.expect("closed", code=1000)


@check("ws", "compression: negotiated, echo and events")
def compressed(context, client):
    if not context.compresses:
        raise Skip("this server has no --deflate")
    with start(context, "--deflate") as server:
        socket = client.open("ws", f"{server.url}/echo", deflate=True)
        opened = socket.expect("open")
        assert opened["extensions"].startswith("permessage-deflate"), opened
        echo_all(socket)
        socket.close()
        socket.expect("closed", code=1000)
        socket = client.open("ws", f"{server.url}/ws?topic=t", deflate=True)
        socket.welcome()
        # Long and short, alike and not: one context, several, and messages that stay as they are.
        data = [f"{number} " * (1 + 97 * (number % 7)) for number in range(100)]
        socket.ws_events([(server.publish(one, topic="t"), one) for one in data], "t")
        socket.close()
        socket.expect("closed", code=1000)
        context.notes.append(opened["extensions"])


@check("ws", "compression: not where the client does not offer it")
def not_offered(context, client):
    if not context.compresses:
        raise Skip("this server has no --deflate")
    with start(context, "--deflate") as server:
        socket = client.open("ws", f"{server.url}/echo", deflate=False)
        opened = socket.expect("open")
        assert opened["extensions"] == "", opened
        echo_all(socket)


@check("ws", "compression: not where the server does not allow it")
def not_allowed(context, client):
    with start(context) as server:
        socket = client.open("ws", f"{server.url}/ws?topic=t", deflate=True)
        opened = socket.welcome()
        assert opened["extensions"] == "", opened
        socket.send("x" * 10_000)
        assert socket.json()["original"] == "x" * 10_000
        socket.ws_events(several(server, 10, "event", topic="t"), "t")


@check("ws, without an end", "500 events in order")
@check("ws", "500 events in order")
def in_order(context, client):
    with start(context) as server:
        socket = client.open("ws", f"{server.url}/ws?topic=a&topic=b")
        socket.welcome()
        lines = [json.dumps({"topic": "abc"[number % 3], "event": "e", "data": f"event {number}"})
                 for number in range(750)]
        request(f"{server.url}/publish", "POST", "\n".join(lines),
                headers={"Content-Type": "application/x-ndjson"})
        wanted = [("abc"[number % 3], "e", f"event {number}") for number in range(750) if number % 3 < 2]
        found = [socket.json() for _ in wanted]
        assert [(one["topic"], one["event"], one["data"]) for one in found] == wanted
        ids = [numbers(one["id"]) for one in found]
        assert ids == sorted(set(ids)), "ids must rise"


@check("ws", "comes back with last_event_id: misses nothing")
def resumes(context, client):
    with start(context) as server:
        url = f"{server.url}/ws?topic=t"
        socket = client.open("ws", url)
        socket.welcome()
        seen = several(server, 3, "seen", topic="t")
        socket.ws_events(seen, "t")
        socket.close()
        socket.expect("closed", code=1000)
        several(server, 2, "of no concern", topic="u")
        missed = several(server, 20, "missed", topic="t")
        socket = client.open("ws", f"{url}&last_event_id={seen[-1][0]}")
        socket.welcome()
        socket.ws_events(missed, "t")
        socket.ws_events(several(server, 3, "live", topic="t"), "t")


@check("ws, without an end", "server restarts: 1012, gap, everything of the new run")
@check("ws", "server restarts: 1012, gap, everything of the new run")
def restart(context, client):
    with start(context) as server:
        port, url = server.port, f"{server.url}/ws?topic=t"
        socket = client.open("ws", url)
        socket.welcome()
        seen = several(server, 3, "first run", topic="t")
        socket.ws_events(seen, "t")
        code = server.stop()
        assert code == 0, f"exit code {code}"
        socket.expect("closed", code=1012, reason="server shutdown")
    with start(context, port=port) as server:
        early = several(server, 3, "second run", topic="t")
        socket = client.open("ws", f"{url}&last_event_id={seen[-1][0]}")
        socket.welcome()
        found = socket.json()
        resumed = json.loads(found.pop("data"))["resumed"]
        assert found == {"type": "event", "id": resumed, "topic": "", "event": "gap"}, found
        assert numbers(seen[-1][0]) < numbers(resumed) < numbers(early[0][0]), resumed
        socket.ws_events(early, "t")


@check("ws", "close codes")
def closes(context, client):
    with start(context, "--max-message", "1000") as server:
        url = f"{server.url}/echo"
        socket = client.open("ws", url)
        socket.expect("open")
        socket.close(4321, "my reason")
        socket.expect("closed", code=4321)
        for payload in ("x" * 1001, b"x" * 1001):
            socket = client.open("ws", url)
            socket.expect("open")
            socket.send(b"x" * 1000)
            socket.echoed(b"x" * 1000)
            socket.send(payload)
            socket.expect("closed", code=1009)
        until(lambda: listed(server) == 0, "the server has forgotten them")


def listed(server):
    clients = json.loads(request(f"{server.url}/stats")[2])["clients"]
    return clients["websocket"]


@check("ws, without an end", "answers the server's pings")
@check("ws", "answers the server's pings")
def pings(context, client):
    with start(context, "--ping", "700ms") as server:
        socket = client.open("ws", f"{server.url}/ws")
        socket.welcome()
        # Beside it one that answers nothing: when that has been dropped, this one has proved itself.
        silent, _ = open_websocket(server.address)
        with silent:
            until(lambda: listed(server) == 1, "of two clients the silent one is gone")
        socket.send("still here")
        assert socket.json()["original"] == "still here"


@check("ws", "ping")
def ping(context, client):
    with start(context) as server:
        socket = client.open("ws", f"{server.url}/ws")
        socket.welcome()
        for data in ("", "x" * 125):
            socket.tell("ping", data=data)
            socket.expect("pong", data=data)


@check("ws", "commands (threadcast.v1)")
def commands(context, client):
    with start(context) as server:
        socket = client.open("ws", f"{server.url}/ws", protocols=["other", "threadcast.v1"])
        if "threadcast.v1" not in socket.next().get("protocol", ""):
            raise Skip("this server has no commands")
        assert socket.json()["type"] == "info"

        def ask(**command):
            socket.send(json.dumps(command))

        def acked(ref, **rest):
            found = socket.json()
            wanted = {"type": "ack", "ref": ref, **rest}
            assert found == wanted, f"wanted {shorten(wanted)}, got {shorten(found)}"

        seen = several(server, 2, "seen", topic="b")
        missed = several(server, 5, "missed", topic="b")
        ask(type="subscribe", topics=["a"], ref=1)
        acked(1, topics=["a"], lastEventId=missed[-1][0])
        socket.ws_events(several(server, 3, "live", topic="a"), "a")
        ask(type="subscribe", topics=["b"], last_event_id=seen[-1][0], ref="two")
        acked("two", topics=["a", "b"], lastEventId=seen[-1][0])
        socket.ws_events(missed, "b")
        ask(type="publish", topic="a", event="e", data={"any": "json"}, ref=3)
        # One's own event may come before the ack.
        both = sorted([socket.json(), socket.json()], key=lambda one: one["type"])
        one = both[0]["id"]
        assert both[0] == {"type": "ack", "ref": 3, "id": one, "subscribers": 1}, both
        assert both[1] == {"type": "event", "id": one, "topic": "a", "event": "e",
                           "data": '{"any": "json"}'}, both  # its JSON as it was sent
        ask(type="unsubscribe", topics=["a"], ref=4)
        acked(4, topics=["b"])
        several(server, 2, "of no concern", topic="a")
        ask(type="ping", ref=5)
        acked(5)
        # What is wrong is answered, and the connection stays.
        for wrong, code in (("no JSON", "bad_json"), ('{"type":"fly","ref":6}', "unknown_command"),
                            ('{"type":"subscribe","ref":6}', "bad_command"), (b"binary", "binary")):
            socket.send(wrong)
            found = socket.json()
            assert (found["type"], found["error"]["code"]) == ("error", code), shorten(found)
            assert found["error"]["message"] and found.get("ref") in (None, 6), shorten(found)
        socket.ws_events(several(server, 3, "still here", topic="b"), "b")
        socket.close()
        socket.expect("closed", code=1000)
