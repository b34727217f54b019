"""Readers of event streams for Python, each used as its documentation shows; the argument says which.

None comes back by itself when a stream ends; that is left to whoever uses them. Those that give
lines leave it to their user to make events of them: here that is parser.py.
"""

import asyncio
import os
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lines import commands, tell  # noqa: E402
from parser import Parser  # noqa: E402


def httpx_sse(url, headers, opened):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=None) as client:
        with connect_sse(client, "GET", url, headers=headers) as source:
            source.response.raise_for_status()
            opened()
            yield from source.iter_sse()


def sseclient_urllib3(url, headers, opened):
    import sseclient
    import urllib3

    http = urllib3.PoolManager()
    response = http.request("GET", url, preload_content=False, headers=headers)
    assert response.status == 200, response.status
    opened()
    yield from sseclient.SSEClient(response).events()


def sseclient_requests(url, headers, opened):
    import requests
    import sseclient

    response = requests.get(url, stream=True, headers=headers)
    response.raise_for_status()
    opened()
    yield from sseclient.SSEClient(response).events()


def requests_lines(url, headers, opened):
    import requests

    with requests.get(url, stream=True, headers=headers) as response:
        response.raise_for_status()
        # Without a charset in the response requests would take the text for Latin-1.
        assert response.encoding.lower() == "utf-8", response.encoding
        opened()
        parser = Parser()
        for line in response.iter_lines():
            yield from parser.feed(line + b"\n")


def httpx_lines(url, headers, opened):
    import httpx

    with httpx.stream("GET", url, headers=headers, timeout=None) as response:
        response.raise_for_status()
        opened()
        parser = Parser()
        for line in response.iter_lines():
            yield from parser.feed(line.encode() + b"\n")


async def read_aiohttp(url, headers, opened, event):
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        async with session.get(url, headers=headers) as response:
            response.raise_for_status()
            opened()
            parser = Parser()
            # As long as a line may be: aiohttp's own limit is 128 KiB.
            async for line in response.content:
                for one in parser.feed(line):
                    event(one)


LIBRARIES = {
    "httpx-sse": httpx_sse,
    "sseclient-py, urllib3": sseclient_urllib3,
    "sseclient-py, requests": sseclient_requests,
    "requests, iter_lines": requests_lines,
    "httpx, iter_lines": httpx_lines,
    "aiohttp": None,
}
LIBRARY = sys.argv[1]


def name_of(event):
    """Each has its own word for it."""
    return event.event if hasattr(event, "event") else event.name


def read(n, url, last):
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}

    def opened():
        tell(n, "open")

    def event(one):
        tell(n, "event", name=name_of(one), data=one.data, id=one.id)

    try:
        if LIBRARY == "aiohttp":
            asyncio.run(read_aiohttp(url, headers, opened, event))
        else:
            for one in LIBRARIES[LIBRARY](url, headers, opened):
                event(one)
        tell(n, "error", detail="the stream ended")
    except Exception as error:
        tell(n, "error", detail=repr(error))


for command in commands():
    if command["do"] == "open":
        arguments = (command["n"], command["url"], command["last"])
        threading.Thread(target=read, args=arguments, daemon=True).start()
os._exit(0)  # streams that are still open are nobody's business any more
