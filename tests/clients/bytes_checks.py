"""What event streams are made of, byte by byte, as curl prints them; and files."""

import os
import re
import subprocess
import tempfile
import time

from checks import check
from parser import Parser
from server import request
from sse_checks import several, start

FIELDS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
    "access-control-allow-origin": "*",
    "transfer-encoding": "chunked",
}
# All that may be in a stream: the answer has no other lines, and they end with LF alone.
LINE = re.compile(rb"(id: \d+-\d+|event: [^\r\n\0]+|data: [^\r\n]*|retry: \d+|:[^\r\n]*|)\n")


class Output:
    """A command that runs, and what it has printed so far."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        self.raw = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def until(self, condition):
        """Reads until the body fulfils a condition, or ends; returns the body."""
        deadline = time.monotonic() + 10
        while not condition(self.body()):
            assert time.monotonic() < deadline, f"so far: {self.raw[-400:]!r}"
            piece = self.process.stdout.read1(65536)
            if not piece:
                break
            self.raw += piece
        return self.body()

    def body(self):
        return self.raw


class Curl(Output):
    """curl on an event stream, with the header fields before the body."""

    def __init__(self, url, *arguments, topic="*"):
        super().__init__(["curl", "-sSNi", *arguments, f"{url}/events?topic={topic}"])

    def body(self):
        return self.raw.partition(b"\r\n\r\n")[2]


def check_form(body):
    """Every line must be one that streams are made of."""
    rest = LINE.sub(b"", body)
    assert not rest, f"no line of an event stream: {rest[:200]!r}"
    assert not body.startswith(b"\xef\xbb\xbf"), "a byte order mark"
    body.decode()


@check("bytes", "header fields")
def header_fields(context, client):
    with start(context) as server, Curl(server.url) as curl:
        curl.until(lambda body: b"\n\n" in body)
        lines = curl.raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 200 OK", lines[0]
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        for name, value in FIELDS.items():
            assert fields.get(name) == value, f"{name}: {fields.get(name)}"
        assert "content-length" not in fields and "content-encoding" not in fields, fields
        status, head, body = request(f"{server.url}/events", "HEAD")
        assert status == 200 and body == "" and head["content-type"] == FIELDS["content-type"]


@check("bytes", "lines, ids and comments")
def every_line(context, client):
    with start(context, "--heartbeat", "50ms") as server:
        greeted = server.publish("before")
        with Curl(server.url) as curl:
            curl.until(lambda body: b"\n\n" in body)
            assert re.match(rb"id: \d+-\d+\nretry: 2000\ndata: ", curl.body()), curl.body()
            for data in ("a\rb\r\nc", "", ": no comment", "\ufeffid: 5\n\ndata: x"):
                server.publish(data, event="e")
            published = several(server, 20, "event")
            body = curl.until(lambda body: published[-1][1].encode() in body and body.count(b"\n:") >= 3)
            check_form(body[:body.rindex(b"\n") + 1])
            parser = Parser()
            events = list(parser.feed(body))
            assert parser.retry == 2000 and parser.comments >= 3, (parser.retry, parser.comments)
            assert events[0].id == greeted, "the newest id that there is"
            # Each block has data: many clients report one without as an event.
            blocks = body.split(b"\n\n")[:-1]
            assert all(b"\ndata: " in b"\n" + block for block in blocks), blocks
            assert [(one.id, one.data) for one in events[-20:]] == published


@check("bytes", "the last words of a server that is stopped")
def farewell(context, client):
    with start(context) as server, Curl(server.url) as curl:
        curl.until(lambda body: b"\n\n" in body)
        server.publish("the last event")
        assert server.stop() == 0
        body = curl.until(lambda body: False)
        check_form(body)
        last = re.search(rb"data: the last event\n\nretry: (\d+)\n$", body)
        assert last and 1000 <= int(last[1]) < 3000, body[-200:]
        assert curl.process.wait(timeout=10) == 0, "curl takes the end for a whole answer"


@check("bytes", "an id that is none, or of another server: gap")
def strange_ids(context, client):
    with start(context) as server:
        newest = several(server, 3, "event")[-1][0]
        for strange in ("nonsense", "9" * 15 + "-0", "1"):
            with Curl(server.url, "-H", f"Last-Event-ID: {strange}") as curl:
                body = curl.until(lambda body: b"event: gap" in body and body.endswith(b"\n\n"))
                gap = f'id: {newest}\nevent: gap\ndata: {{"resumed":"{newest}"}}\n\n'
                assert body.endswith(gap.encode()), f"{strange}: {body!r}"


@check("bytes", "a file: a part of it, resumed, not sent again")
def files(context, client):
    content = bytes(range(256)) * 4096
    with tempfile.TemporaryDirectory() as folder:
        www, copy = os.path.join(folder, "www"), os.path.join(folder, "copy")
        os.mkdir(www)
        with open(os.path.join(www, "file.bin"), "wb") as file:
            file.write(content)
        with start(context, "--www", www) as server:
            url = f"{server.url}/file.bin"

            def curl(*arguments):
                command = ["curl", "-sS", "--max-time", "20", "-w", "%{http_code}", "-o", copy]
                done = subprocess.run([*command, *arguments, url], capture_output=True, text=True,
                                      check=False)
                assert done.returncode == 0, f"{arguments}: {done.stderr}"
                with open(copy, "rb") as file:
                    return int(done.stdout), file.read()

            assert curl("-r", "1000-1999") == (206, content[1000:2000])
            assert curl("-r", "-256") == (206, content[-256:])
            with open(copy, "wb") as file:
                file.write(content[:700_000])
            assert curl("-C", "-") == (206, content), "resumed where it was interrupted"
            tags = os.path.join(folder, "tags")
            assert curl("--etag-save", tags) == (200, content)
            assert curl("--etag-compare", tags)[0] == 304
            assert curl("-z", os.path.join(www, "file.bin"))[0] == 304
