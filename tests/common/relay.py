"""A network that can fail: passes bytes on to a server until it is told to cut everything, or to pass on
what comes next to another one."""

import contextlib
import socket
import threading


class Relay:
    def __init__(self, port):
        self.server = ("127.0.0.1", port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.lock = threading.Lock()
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def accept(self):
        with contextlib.suppress(OSError):  # that of a listener that was closed
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(self.server)
                except OSError:  # nobody listens there: the client is told by the end
                    client.close()
                    continue
                with self.lock:
                    self.sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def switch(self, port):
        """Another server takes over the address, as after a failover."""
        self.server = ("127.0.0.1", port)
        self.cut()

    def cut(self):
        """Ends all connections; new ones are let through."""
        with self.lock:
            cut, self.sockets = self.sockets, []
        for one in cut:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
