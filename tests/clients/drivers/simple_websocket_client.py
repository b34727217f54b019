"""Python's simple-websocket, as its documentation uses it. It reads the handshake's response with one
`recv`, and does not look at what came with it until there is more.
"""

import base64
import os
import threading

import simple_websocket
from lines import commands, tell

sockets = {}


def read(n, url, protocols):
    try:
        socket = simple_websocket.Client.connect(url, subprotocols=protocols or None)
    except Exception as error:
        return tell(n, "error", detail=repr(error))
    sockets[n] = socket
    tell(n, "open", extensions="", protocol=socket.subprotocol or "")
    try:
        while True:
            message = socket.receive()
            if isinstance(message, str):
                tell(n, "text", data=message)
            else:
                tell(n, "binary", data=base64.b64encode(message).decode())
    except simple_websocket.ConnectionClosed as end:
        tell(n, "closed", code=int(end.reason), reason=end.message or "")


for command in commands():
    n, data = command["n"], command.get("data")
    if command["do"] == "open":
        threading.Thread(target=read, args=(n, command["url"], command["protocols"]), daemon=True).start()
    elif command["do"] == "text":
        sockets[n].send(data)
    elif command["do"] == "binary":
        sockets[n].send(base64.b64decode(data))
    elif command["do"] == "close":
        sockets[n].close(command["code"], command["reason"])
os._exit(0)  # connections that are still open are nobody's business any more
