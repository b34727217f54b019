"""What must hold behind reverse proxies: two servers, sticky sessions, buffering as by default; and with
the book's configurations."""

import functools
import http.client
import json
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bytes_checks import Curl
from checks import check
from page_checks import LIVE, Page
from proxies import CaddyOfTheBook, HAProxy, HAProxyOfTheBook, Nginx, NginxOfTheBook
from relay import Relay
from server import publish, request, until
from sse_checks import back_again, numbers, several
from ws_checks import echo_all


ALL = (Nginx, HAProxy, NginxOfTheBook, HAProxyOfTheBook, CaddyOfTheBook)


def behind(kind, what, proxies=(Nginx, HAProxy)):
    """Registers a check once for every proxy: called with it, the context and the client."""

    def register(function):
        for proxy in proxies:
            check(kind, f"{proxy.name}: {what}")(functools.partial(function, proxy))
        return function

    return register


class Through:
    """Publishes through a proxy, as `several` wants it."""

    def __init__(self, proxy):
        self.url = proxy.url

    def publish(self, data, **query):
        return publish(self.url, data, **query)[0]


def serving(proxy, transport):
    """The one server that has a client."""
    def find():
        has = [json.loads(request(f"{server.url}/stats")[2])["clients"][transport]
               for server in proxy.servers]
        return sum(has) == 1 and proxy.servers[has.index(1)]
    return until(find, f"one of the servers has the one client of {transport}")


@behind("sse", "events at once, none lost", proxies=ALL)
def streams(kind, context, client):
    with kind(context) as proxy, Relay(proxy.port) as relay:
        through, url = Through(proxy), f"{relay.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        # Nothing else is sent before it is there: a proxy that waits for more would wait for ever.
        times = []
        for number in range(5):
            began = time.monotonic()
            one = through.publish(f"single {number}", topic="t")
            stream.event(id=one, data=f"single {number}")
            times.append(time.monotonic() - began)
        context.notes.append(f"the fastest after {1000 * min(times):.0f} ms")
        # HAProxy gives chunks to the kernel with MSG_MORE, which holds them back for 200 ms, unless
        # it is told not to: then all five take that long.
        assert min(times) < 0.15, f"events took {1000 * min(times):.0f} ms"
        relay.cut()
        missed = several(through, 10, "missed", topic="t")
        stream = back_again(client, stream, url, one)
        stream.events(missed)


@behind("sse", "its server dies: the other one says gap")
def fails_over(kind, context, client):
    with kind(context) as proxy:
        through, url = Through(proxy), f"{proxy.url}/events?topic=t"
        stream = client.open("sse", url)
        stream.greeting()
        seen = several(through, 3, "seen", topic="t")
        stream.events(seen)
        serving(proxy, "sse").kill()
        stream = back_again(client, stream, url, seen[-1][0])
        gap = stream.event(name="gap")
        assert json.loads(gap["data"]) == {"resumed": gap["id"]}, gap
        live = several(through, 3, "live", topic="t")
        stream.events(live)
        assert numbers(gap["id"]) < numbers(live[0][0]), gap


@behind("ws", "echo, events, replay, 1012", proxies=ALL)
def sockets(kind, context, client):
    flags = ("--deflate",) if context.compresses else ()
    with kind(context, *flags) as proxy:
        through = Through(proxy)
        socket = client.open("ws", f"{proxy.url}/echo", deflate=True)
        context.notes.append(socket.expect("open")["extensions"] or "not compressed")
        echo_all(socket)
        socket.close()
        socket.expect("closed", code=1000)

        url = f"{proxy.url}/ws?topic=t"
        socket = client.open("ws", url)
        socket.welcome()
        seen = several(through, 5, "seen", topic="t")
        socket.ws_events(seen, "t")
        socket.close()
        socket.expect("closed", code=1000)
        missed = several(through, 5, "missed", topic="t")
        socket = client.open("ws", f"{url}&last_event_id={seen[-1][0]}")
        socket.welcome()
        socket.ws_events(missed, "t")
        serving(proxy, "websocket").stop()
        socket.expect("closed", code=1012, reason="server shutdown")


@behind("ws", "close codes, both ways")
def closes(kind, context, client):
    # A small limit, so that the whole message is on its way when it is refused:
    # a proxy may answer what still comes with a reset, and that destroys the close frame.
    with kind(context, "--max-message", "1000") as proxy:
        socket = client.open("ws", f"{proxy.url}/echo")
        socket.expect("open")
        socket.close(4321, "my reason")
        socket.expect("closed", code=4321)
        socket = client.open("ws", f"{proxy.url}/echo")
        socket.expect("open")
        socket.send("x" * 1001)
        socket.expect("closed", code=1009)


@behind("page", "the page connects, from an origin that is the proxy's", proxies=ALL)
def page(kind, context, client):
    with kind(context) as proxy:
        shown = Page(client, proxy.url)
        until(lambda: shown.value(LIVE), "both connections are live")
        shown.submit("publish-form", **{"publish-topic": "p", "publish-body": "from the page"})
        until(lambda: shown.rows("sse", "from the page"), "what it publishes comes back")
        shown.leave()


HOST = "proxy_set_header Host $http_host;"
NAMED = {HOST: "", 'proxy_set_header X-Forwarded-Host "";': "proxy_set_header X-Forwarded-Host $http_host;"}


@behind("page", "without its Host line: refused, and the log names it", proxies=(NginxOfTheBook,))
def names_what_mends_it(kind, context, client):
    # Without trust the named host is not believed either.
    for change in ({HOST: ""}, NAMED):
        with kind(context, change=change) as proxy:
            shown = Page(client, proxy.url)
            shown.value(f"new WebSocket('ws://127.0.0.1:{proxy.port}/ws').onclose = () => window.lost = true")
            until(lambda: shown.value("window.lost"), "the WebSocket is refused")
            shown.leave()
            lines = [line for line in proxy.logged().splitlines() if "WARN" in line]
            parts = (HOST, f"http://127.0.0.1:{proxy.port}", '"threadcast"')
            assert len(lines) == 1 and all(part in lines[0] for part in parts), lines


@behind("page", "X-Forwarded-Host from a trusted proxy is the own host", proxies=(NginxOfTheBook,))
def believes_the_named_host(kind, context, client):
    with kind(context, "--trust-proxy", "127.0.0.1", change=NAMED) as proxy:
        shown = Page(client, proxy.url)
        until(lambda: shown.value(LIVE), "both connections are live")
        shown.leave()
        assert proxy.logged() == "", proxy.logged()


PUBLISHERS, EACH = 4, 50


@behind("bytes", f"{PUBLISHERS * EACH} publications over connections that are kept")
def keeps_connections(kind, context, client):
    """No error, and few connections between proxy and server: health checks and those kept."""
    with kind(context) as proxy:
        before = connections(proxy)
        with ThreadPoolExecutor(PUBLISHERS) as pool:
            ids = [one for part in pool.map(publish_many, [proxy] * PUBLISHERS) for one in part]
        assert len(set(ids)) == PUBLISHERS * EACH, f"{len(set(ids))} events"
        count = len(connections(proxy) - before)
        context.notes.append(f"{count} connections to the servers, health checks included")
        assert count <= 50, f"{count} connections to the servers"


def publish_many(proxy):
    """Publishes over one connection to the proxy; in the middle it is longer idle than the server
    waits. Returns the events' ids."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    ids, ports = [], set()
    try:
        for number in range(EACH):
            if number == EACH // 2:
                time.sleep(5.5)
            connection.request("POST", "/publish?topic=t", f"number {number}")
            answer = connection.getresponse()
            ports.add(connection.sock.getsockname()[1])
            text = answer.read().decode()
            assert answer.status == 200, f"{number}: {answer.status} {text}"
            ids.append(json.loads(text)["id"])
    finally:
        connection.close()
    assert len(ports) == 1, f"{len(ports)} connections to the proxy"
    return ids


def connections(proxy):
    """The connections to the servers' ports that the kernel knows, also those that have ended lately,
    as pairs of ports. Both ends are on this machine."""
    servers = {server.port for server in proxy.servers}
    with open("/proc/net/tcp", encoding="ascii") as table:
        ends = [[int(end.split(":")[1], 16) for end in line.split()[1:3]] for line in list(table)[1:]]
    return {tuple(sorted(pair)) for pair in ends if servers & set(pair) and 0 not in pair}


@behind("bytes", "sticky by address, both servers used")
def sticky(kind, context, client):
    with kind(context) as proxy:
        used = set()
        for number in range(2, 26):
            source, topic = f"127.0.0.{number}", f"of-{number}"
            with Curl(proxy.url, "--interface", source, topic=topic) as stream:
                stream.until(lambda body: b"\n\n" in body)
                used.add(head(stream)["x-served-by"])
                one, subscribers = publish(proxy.url, topic, source=source, topic=topic)
                assert subscribers == 1, f"{source} published to {subscribers}"
                stream.until(lambda body: f"id: {one}\n".encode() in body)
        assert len(used) == 2, f"all 24 addresses at {used}"


def head(curl):
    lines = curl.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


@behind("bytes", "sticky by cookie, wherever it comes from", proxies=(HAProxy,))
def sticky_by_cookie(kind, context, client):
    with kind(context) as proxy:
        cookies = {}
        for number in range(2, 26):
            answer = request(f"{proxy.url}/healthz", source=f"127.0.0.{number}")[1]
            cookies[answer["x-served-by"]] = answer["set-cookie"].split(";")[0]
        assert len(cookies) == 2, cookies
        for server, cookie in cookies.items():
            for number in range(2, 14):
                source = f"127.0.0.{number}"
                answer = request(f"{proxy.url}/healthz", source=source, headers={"Cookie": cookie})
                assert answer[1]["x-served-by"] == server, f"{cookie} from {source}"


@behind("bytes", "its default check finds the servers", proxies=(HAProxy,))
def default_check(kind, context, client):
    """`OPTIONS / HTTP/1.0`, where the configuration does not say what else to send."""
    with kind(context, change={"option httpchk GET /healthz\n": "option httpchk\n"}) as proxy:
        # HAProxy takes a server for well until two checks have failed; one comes every 500 ms.
        time.sleep(2)
        status, _, text = request(f"{proxy.url}/healthz")
        assert status == 200, f"{status} {text[:100]}"


@behind("bytes", "in HTTP/1.0, without X-Accel-Buffering, events would wait", proxies=(Nginx,))
def needs_the_field(kind, context, client):
    """That the checks above can fail. A bare stream, which nginx asks for where it is not told to speak
    HTTP/1.1, it holds back unless it is told not to; chunks it hands on."""
    change = {"proxy_http_version 1.1;": "proxy_ignore_headers X-Accel-Buffering;"}
    with kind(context, change=change) as proxy:
        with Curl(proxy.url) as curl:
            held = queue.Queue()
            reader = threading.Thread(
                target=lambda: held.put(curl.until(lambda body: b"data: small\n" in body)))
            reader.start()
            until(lambda: publish(proxy.url, "small")[1] == 1, "the stream is there")
            try:
                seen = held.get(timeout=1)
                raise AssertionError(f"was not held back: {seen!r}")
            except queue.Empty:
                pass
            publish(proxy.url, "x" * 100_000)  # more than the buffers take
            assert b"data: small\n" in held.get(timeout=10)
            reader.join()
