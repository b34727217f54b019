"""Two clients of plain HTTP for Python that keep connections: `requests` or `urllib3`, the argument.

{"do": "publish", "n": 1, "url": …, "data": …, "chunked": …} is answered {"n": 1, "is": "answered",
"status": …, "port": …}: the port of ours that the request went out from, where the connection is
kept.
"""

import sys

import requests
import urllib3
from lines import commands, tell

LIBRARY = sys.argv[1]
# What is not repeated shows up as an error.
session = requests.Session()
pool = urllib3.PoolManager(retries=False)


def pieces(data):
    """A body of unknown length is sent in chunks."""
    for start in range(0, len(data), 10_000):
        yield data[start:start + 10_000]


def publish(url, body):
    """The response, whose connection is known until its body has been read."""
    if LIBRARY == "requests":
        response = session.post(url, data=body, stream=True)
        return response.status_code, response.raw
    response = pool.request("POST", url, body=body, preload_content=False)
    return response.status, response


for command in commands():
    data = command["data"].encode()
    try:
        status, raw = publish(command["url"], pieces(data) if command["chunked"] else data)
        sock = raw.connection and raw.connection.sock
        port = sock.getsockname()[1] if sock else None
        text = raw.read().decode()
        raw.release_conn()
        tell(command["n"], "answered", status=status, port=port, text=text)
    except Exception as error:
        tell(command["n"], "error", detail=repr(error))
