"""Python's websockets, its blocking client: a thread reads each connection."""

import base64
import os
import threading

from lines import commands, tell
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

sockets = {}


def read(n, url, protocols, deflate):
    compression = "deflate" if deflate else None
    try:
        socket = connect(url, subprotocols=protocols or None, compression=compression, max_size=None)
    except Exception as error:
        return tell(n, "error", detail=repr(error))
    sockets[n] = socket
    extensions = ", ".join(one.name for one in socket.protocol.extensions)
    tell(n, "open", extensions=extensions, protocol=socket.subprotocol or "")
    try:
        while True:
            message = socket.recv()
            if isinstance(message, str):
                tell(n, "text", data=message)
            else:
                tell(n, "binary", data=base64.b64encode(message).decode())
    except ConnectionClosed as end:
        tell(n, "closed", code=end.rcvd.code if end.rcvd else 1006,
             reason=end.rcvd.reason if end.rcvd else "")


def await_pong(n, data, received):
    if received.wait(10):
        tell(n, "pong", data=data)


for command in commands():
    n, data = command["n"], command.get("data")
    if command["do"] == "open":
        arguments = (n, command["url"], command["protocols"], command["deflate"])
        threading.Thread(target=read, args=arguments, daemon=True).start()
    elif command["do"] == "text":
        sockets[n].send(data)
    elif command["do"] == "binary":
        sockets[n].send(base64.b64decode(data))
    elif command["do"] == "ping":
        received = sockets[n].ping(data)
        threading.Thread(target=await_pong, args=(n, data, received), daemon=True).start()
    elif command["do"] == "close":
        sockets[n].close(command["code"], command["reason"])
os._exit(0)  # connections that are still open are nobody's business any more
