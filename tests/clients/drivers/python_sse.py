"""Two readers of event streams for Python, over httpx: `httpx-sse` or `sseclient-py`, the argument.

Neither comes back by itself when a stream ends; that is left to whoever uses them.
"""

import os
import sys
import threading

import httpx
from httpx_sse import EventSource
from lines import commands, tell
from sseclient import SSEClient

LIBRARY = sys.argv[1]
responses = {}


class Chunks:
    """What sseclient-py reads from: pieces of bytes, as they come."""

    def __init__(self, response):
        self.response = response

    def __iter__(self):
        return self.response.iter_raw()

    def close(self):
        self.response.close()


def events(response):
    if LIBRARY == "httpx-sse":
        return EventSource(response).iter_sse()
    return SSEClient(Chunks(response)).events()


def read(n, url, last):
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
    try:
        with httpx.stream("GET", url, headers=headers, timeout=None) as response:
            response.raise_for_status()
            responses[n] = response
            tell(n, "open")
            for event in events(response):
                # httpx-sse makes an event of a lone `retry`, which the standard does not.
                if event.retry is not None and not event.data:
                    continue
                tell(n, "event", name=event.event, data=event.data, id=event.id, retry=event.retry)
        tell(n, "error", detail="the stream ended")
    except Exception as error:
        tell(n, "error", detail=repr(error))


for command in commands():
    n = command["n"]
    if command["do"] == "open":
        arguments = (n, command["url"], command["last"])
        threading.Thread(target=read, args=arguments, daemon=True).start()
os._exit(0)  # streams that are still open are nobody's business any more
