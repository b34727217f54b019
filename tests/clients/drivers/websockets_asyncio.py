"""Python's websockets, its asyncio client: a task reads each connection."""

import asyncio
import base64
import json
import os
import sys

from lines import tell
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

sockets = {}


async def read(n, url, protocols, deflate):
    compression = "deflate" if deflate else None
    try:
        socket = await connect(url, subprotocols=protocols or None, compression=compression,
                               max_size=None)
    except Exception as error:
        return tell(n, "error", detail=repr(error))
    sockets[n] = socket
    extensions = ", ".join(one.name for one in socket.protocol.extensions)
    tell(n, "open", extensions=extensions, protocol=socket.subprotocol or "")
    try:
        while True:
            message = await socket.recv()
            if isinstance(message, str):
                tell(n, "text", data=message)
            else:
                tell(n, "binary", data=base64.b64encode(message).decode())
    except ConnectionClosed as end:
        tell(n, "closed", code=end.rcvd.code if end.rcvd else 1006,
             reason=end.rcvd.reason if end.rcvd else "")


async def ping(n, data):
    await (await sockets[n].ping(data))
    tell(n, "pong", data=data)


async def main():
    loop, tasks = asyncio.get_running_loop(), set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        n, data = command["n"], command.get("data")
        if command["do"] == "open":
            tasks.add(loop.create_task(read(n, command["url"], command["protocols"],
                                            command["deflate"])))
        elif command["do"] == "text":
            await sockets[n].send(data)
        elif command["do"] == "binary":
            await sockets[n].send(base64.b64decode(data))
        elif command["do"] == "ping":
            tasks.add(loop.create_task(ping(n, data)))
        elif command["do"] == "close":
            await sockets[n].close(command["code"], command["reason"])
    os._exit(0)  # connections that are still open are nobody's business any more


asyncio.run(main())
