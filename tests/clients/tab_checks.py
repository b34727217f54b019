"""Many tabs: the six connections that a browser has for one server over HTTP/1.1, and what the book says
to do about them."""

import json
import os
import tempfile

from checks import check
from page_checks import Page
from proxies import of_the_book
from server import request, until
from sse_checks import start

TABS = 8


def clients(server):
    counts = json.loads(request(f"{server.url}/stats")[2])["clients"]
    return counts["sse"], counts["websocket"]


@check("page", "the seventh event stream waits, a WebSocket does not")
def seventh_waits(context, client):
    with start(context) as server:
        page = Page(client, f"{server.url}/healthz")
        page.value("window.streams = Array.from({ length: 7 }, () => new EventSource('/events')), 0")
        until(lambda: clients(server) == (6, 0), "six streams")
        page.value("window.socket = new WebSocket(`ws://${location.host}/ws`), 0")
        until(lambda: page.value("socket.readyState") == 1, "the WebSocket is open")
        states = page.value("streams.map((stream) => stream.readyState).sort()")
        assert states == [0, 1, 1, 1, 1, 1, 1], states
        page.value("streams.find((stream) => stream.readyState === 1).close(), 0")
        until(lambda: page.value("streams.filter((stream) => stream.readyState === 1).length") == 6,
              "the seventh has the place of the one that left")
        page.leave()


@check("page", f"the book's worker: one event stream for {TABS} tabs")
def one_for_all(context, client):
    with tempfile.TemporaryDirectory() as folder:
        for name, language in (("events.js", "js"), ("index.html", "html")):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(of_the_book(language, {}))
        with start(context, "--www", folder) as server:
            pages = [Page(client, server.url) for _ in range(TABS)]
            until(lambda: clients(server) == (1, 0), "one stream")
            server.publish("for every tab", topic="a")
            for page in pages:
                until(lambda page=page: "for every tab" in page.value("document.body.innerText"),
                      "the event is in every tab")
            # The stream stays for as long as any tab does.
            pages.pop(0).leave()
            server.publish("for the others", topic="a")
            for page in pages:
                until(lambda page=page: "for the others" in page.value("document.body.innerText"),
                      "the event is in every other tab")
                assert clients(server) == (1, 0)
            for page in pages:
                page.leave()
            until(lambda: clients(server) == (0, 0), "the stream ends with the last tab")
