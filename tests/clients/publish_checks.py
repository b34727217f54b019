"""What must hold for programs that publish: one connection serves all of their requests."""

import json
import subprocess
import time

from bytes_checks import Curl
from checks import check
from sse_checks import start

COUNT = 50
# Longer than the server waits for the next request on a connection.
PAUSE = 5.5
BODIES = ["", "x", "é € 𝄞", "x" * 1000, "x" * 300_000]


def post(connection, url, data, chunked=False):
    connection.tell("publish", url=url, data=data, chunked=chunked)
    return connection.expect("answered")


@check("publish", "50 requests, one connection")
def one_connection(context, client):
    with start(context) as server:
        connection = client.session()
        ports, ids = set(), []
        for number in range(COUNT):
            data = BODIES[number % len(BODIES)]
            answer = post(connection, f"{server.url}/publish", data, chunked=number % 3 == 2)
            assert answer["status"] == 200, answer
            ports.add(answer["port"])
            ids.append(tuple(map(int, json.loads(answer["text"])["id"].split("-"))))
        assert ids == sorted(set(ids)), "ids must rise"
        assert len(ports) == 1, f"{len(ports)} connections"


@check("publish", "refused requests do not end the connection")
def refused(context, client):
    with start(context) as server:
        connection = client.session()
        ports = set()
        for number in range(COUNT):
            good = number % 2 == 0
            name = "t" if good else "a%0Ab"
            answer = post(connection, f"{server.url}/publish?topic={name}", "")
            assert answer["status"] == (200 if good else 400), answer
            ports.add(answer["port"])
        assert len(ports) == 1, f"{len(ports)} connections"


@check("publish", "a body nobody reads: refused, and the next request is served")
def unread(context, client):
    with start(context) as server:
        connection = client.session()
        for _ in range(10):
            answer = post(connection, f"{server.url}/no-such-page", "x" * 100_000)
            assert answer["status"] == 404, answer
            answer = post(connection, f"{server.url}/publish", "x")
            assert answer["status"] == 200, answer


@check("publish", "after a pause: another connection, no error")
def after_a_pause(context, client):
    with start(context) as server:
        connection = client.session()
        first = post(connection, f"{server.url}/publish", "x")
        time.sleep(PAUSE)
        second = post(connection, f"{server.url}/publish", "x")
        assert first["status"] == second["status"] == 200, (first, second)
        assert first["port"] != second["port"], "the connection was still open"


@check("bytes", "10 publications over one connection")
def curl_publishes(context, client):
    count = 10
    with start(context) as server, Curl(server.url) as stream:
        stream.until(lambda body: b"\n\n" in body)
        command = ["curl", "-sS"]
        for number in range(count):
            one = ["-w", "\n%{http_code} %{local_port} %{num_connects}\n", "-d", f"number {number}"]
            command += ["--next"] * (number > 0) + one + [f"{server.url}/publish"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
        told = [line.split() for line in text.splitlines() if len(line.split()) == 3]
        assert [one[0] for one in told] == ["200"] * count, text
        assert len({one[1] for one in told}) == 1, f"ports: {told}"
        assert [int(one[2]) for one in told] == [1] + [0] * (count - 1), f"connects: {told}"
        last = f"data: number {count - 1}\n".encode()
        body = stream.until(lambda body: last in body)
        found = [line for line in body.split(b"\n") if line.startswith(b"data: number")]
        assert found == [f"data: number {number}".encode() for number in range(count)], found
