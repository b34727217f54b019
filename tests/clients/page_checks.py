"""Pages as a browser shows them: the server's own, a user's, and one of another origin."""

import json
import os
import tempfile

from checks import check
from driver import shorten
from server import until
from sse_checks import numbers, several, start

LIVE = "['sse', 'ws'].every((id) => document.getElementById(id).dataset.state === 'live')"


class Page:
    """A page that a client has gone to. An error in its script fails the check."""

    def __init__(self, client, url):
        self.connection = client.open("page", url)
        self.connection.expect("open")

    def value(self, expression):
        self.connection.tell("evaluate", expression=expression)
        return self.connection.expect("value").get("value")

    def text(self, name):
        """What an element shows."""
        return self.value(f"document.getElementById({json.dumps(name)}).textContent")

    def rows(self, pane, kind):
        """The rows of a kind in the log of a pane, newest last."""
        selector = json.dumps(f"#{pane} .log > *")
        texts = self.value(f"[...document.querySelectorAll({selector})].map((row) => row.textContent)")
        return [text for text in texts if kind in text]

    def submit(self, form, **values):
        """Fills fields in and sends their form, as a reader does."""
        fill = "".join(f"document.getElementById({json.dumps(name)}).value = {json.dumps(value)};"
                       for name, value in values.items())
        self.value(f"{fill} document.getElementById({json.dumps(form)}).requestSubmit()")

    def leave(self):
        self.connection.tell("leave")
        self.connection.expect("closed")


@check("page", "shows streams, readings, events, echo")
def shows(context, client):
    with start(context, "--tick", "200ms") as server:
        page = Page(client, server.url)
        until(lambda: page.value(LIVE), "both connections are live")
        until(lambda: page.text("cpu") != "–", "a reading is shown")
        one = server.publish("from outside <b>", topic="t")
        until(lambda: page.rows("sse", "from outside <b>"), "a published event is shown, as text")
        until(lambda: numbers(page.text("sse-last-id")) >= numbers(one), "its id is shown")
        page.submit("ws-send-form", **{"ws-message": "over and out"})
        until(lambda: page.rows("ws", "over and out")[1:], "a sent message and its answer are shown")
        page.submit("publish-form", **{"publish-topic": "p", "publish-event": "e",
                                       "publish-body": "from the page"})
        until(lambda: page.text("publish-answer").startswith("Published as "), "publishing works")
        until(lambda: page.rows("sse", "from the page"), "and the event comes back, named")
        page.leave()


@check("page", "the server restarts: both come back, the gap is shown")
def restarts(context, client):
    with start(context) as server:
        port = server.port
        page = Page(client, server.url)
        until(lambda: page.value(LIVE), "both connections are live")
        several(server, 1, "first run")
        until(lambda: page.rows("sse", "first run 0"), "an event is shown")
        assert server.stop() == 0
    until(lambda: not page.value(LIVE), "the loss is shown")
    with start(context, port=port) as server:
        several(server, 1, "second run")
        until(lambda: page.value(LIVE), "both connections are live again", timeout=40)
        until(lambda: page.rows("sse", "second run 0"), "what came in between is shown")
        rows = page.rows("sse", "no longer kept")
        assert len(rows) == 1, f"the gap must be shown once: {shorten(rows)}"
        page.leave()


# The page of an article about live data: everything in one file, and nothing of ours in it.
PLAIN_PAGE = """<!DOCTYPE html>
<html><head><title>Live</title>
<style>body { background: rgb(1, 2, 3) } .line { color: rgb(4, 5, 6) }</style></head>
<body style="margin: 7px">
<button id="send" onclick="ws.send('from the button')">Send</button>
<div id="sse"></div><div id="ws"></div>
<script>
  function show(id, text) {
    const line = document.createElement('p');
    line.className = 'line';
    line.textContent = text;
    document.getElementById(id).appendChild(line);
  }
  const events = new EventSource('/events');
  events.onmessage = (event) => show('sse', JSON.parse(event.data).message);
  const ws = new WebSocket(`ws://${location.host}`);
  ws.onopen = () => document.body.dataset.state = 'open';
  ws.onmessage = (event) => {
    const message = JSON.parse(event.data);
    show('ws', message.message || message.original);
  };
</script></body></html>
"""


@check("page", "a folder's plain page runs: inline style and script, both kinds, onclick")
def runs_a_plain_page(context, client):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "index.html"), "w", encoding="utf-8") as file:
            file.write(PLAIN_PAGE)
        with start(context, "--www", folder) as server:
            page = Page(client, server.url)
            until(lambda: "Connection established" in page.text("sse"), "the stream's greeting")
            until(lambda: page.value("document.body.dataset.state") == "open", "the WebSocket")
            until(lambda: "Welcome" in page.text("ws"), "its welcome")
            server.publish(json.dumps({"message": "published"}))
            until(lambda: "published" in page.text("sse"), "a published event")
            page.value("document.getElementById('send').click()")
            until(lambda: "from the button" in page.text("ws"), "the answer to the button's message")
            style = "getComputedStyle(document.querySelector('{}')).{}"
            for selector, name, value in [("body", "backgroundColor", "rgb(1, 2, 3)"),
                                          ("body", "marginLeft", "7px"),
                                          ("#sse .line", "color", "rgb(4, 5, 6)")]:
                found = page.value(style.format(selector, name))
                assert found == value, f"{name} of {selector} is {found}, not {value}"
            page.leave()


# What a page of another origin does with a server. Each promise becomes something JSON can hold.
FOREIGN = """(async () => {
  const [url, token] = %s;
  const fields = {'Last-Event-ID': '0-0', 'Cache-Control': 'no-cache', 'X-Requested-With': 'fetch',
                  'traceparent': '00-0-0-00', ...(token && {Authorization: `Bearer ${token}`})};
  const ask = async (path, options) => {
    try {
      const answer = await fetch(url + path, options);
      const type = answer.headers.get('Content-Type');
      if (!type.startsWith('text/event-stream')) {
        const body = await answer.json();
        return `${answer.status} ${body.error ? body.error.code : 'json'}`;
      }
      const {value} = await answer.body.getReader().read();
      return `${answer.status} stream of ${value.length > 0}`;
    } catch (error) {
      return error.name;
    }
  };
  const source = (path, options) => new Promise((resolve) => {
    const events = new EventSource(url + path, options);
    events.onmessage = () => { events.close(); resolve('message'); };
    events.onerror = () => { events.close(); resolve('error'); };
  });
  return {
    stream: await ask('/events', {headers: fields}),
    streamWithCookie: await ask('/events', {credentials: 'include'}),
    stats: await ask('/stats', {headers: fields}),
    publish: await ask('/publish', {method: 'POST', body: '1', headers: fields}),
    ticket: await ask('/ticket', {method: 'POST', credentials: 'include'}),
    misspelt: await ask('/events?topics=a', {headers: fields}),
    source: await source('/events', {}),
    sourceWithCookie: await source('/events', {withCredentials: true}),
  };
})()"""


def seen_from(client, page_url, server, token=None, cookie=None):
    """What a page at page_url gets from a server, with these credentials."""
    page = Page(client, f"{page_url}/healthz")
    if cookie:
        page.value(f"document.cookie = 'threadcast_token={cookie}; SameSite=Strict'")
    found = page.value(FOREIGN % json.dumps([server.url, token]))
    page.leave()
    return found


@check("page", "another origin: any fields, cookies where it is named, errors can be read")
def other_origin(context, client):
    with start(context) as home:
        named = ["--allow-origin", home.url]
        # A browser holds `localhost` for another origin, which nobody has named.
        stranger = home.url.replace("127.0.0.1", "localhost")
        stream = "200 stream of true"
        with start(context, *named) as public:
            everything = {"stream": stream, "streamWithCookie": stream, "stats": "200 json",
                          "publish": "200 json", "ticket": "404 not_protected",
                          "misspelt": "400 bad_query", "source": "message",
                          "sourceWithCookie": "message"}
            expect_seen(seen_from(client, home.url, public), everything)
            # Who is not named may read what is public, without cookies, and nothing else.
            expect_seen(seen_from(client, stranger, public),
                        {**everything, "streamWithCookie": "TypeError", "publish": "TypeError",
                         "ticket": "TypeError", "sourceWithCookie": "error"})
        with start(context, *named, "--token", "p", "--subscribe-token", "s") as protected:
            refused = {"stream": "401 unauthorized", "streamWithCookie": "401 unauthorized",
                       "stats": "401 unauthorized", "publish": "401 unauthorized",
                       "ticket": "401 unauthorized", "misspelt": "400 bad_query",
                       "source": "error", "sourceWithCookie": "error"}
            expect_seen(seen_from(client, home.url, protected), refused)
            expect_seen(seen_from(client, home.url, protected, token="s", cookie="s"),
                        {**refused, "stream": stream, "streamWithCookie": stream,
                         "stats": "200 json", "ticket": "200 json", "sourceWithCookie": "message"})
            nothing = {name: "error" if "source" in name else "TypeError" for name in refused}
            expect_seen(seen_from(client, stranger, protected, token="s", cookie="s"), nothing)


def expect_seen(found, wanted):
    different = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
    assert not different, f"got and wanted: {different}"
