"""Many hostile connections at once, without a thread for each."""

import errno
import selectors
import socket
import time

from wire import reset


class Herd:
    """Non-blocking connections to one address, driven by one selector."""

    def __init__(self, address):
        self.address = address
        self.selector = selectors.DefaultSelector()
        self.opened = 0
        self.refused = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for key in list(self.selector.get_map().values()):
            self.drop(key.fileobj)
        self.selector.close()

    def __len__(self):
        return len(self.selector.get_map())

    def open(self, data=None):
        """Starts a connection; `data` is what the caller wants to remember with it."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self.refused += 1
            return None
        self.opened += 1
        self.selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, data)
        return sock

    def fill(self, count, data=None):
        for _ in range(count - len(self)):
            self.open(data)

    def only_read(self, sock, data=None):
        """Not interested in writing any more."""
        self.selector.modify(sock, selectors.EVENT_READ, data)

    def both(self, sock, data=None):
        self.selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, data)

    def ready(self, timeout=0.05):
        """What can be read or written now: (socket, data, readable, writable)."""
        for key, events in self.selector.select(timeout):
            readable = bool(events & selectors.EVENT_READ)
            writable = bool(events & selectors.EVENT_WRITE)
            yield key.fileobj, key.data, readable, writable

    def all(self):
        return [(key.fileobj, key.data) for key in self.selector.get_map().values()]

    def drop(self, sock):
        self.selector.unregister(sock)
        sock.close()

    def hang_up(self, sock):
        """Ends it with a reset, so that no port stays in TIME_WAIT."""
        self.selector.unregister(sock)
        reset(sock)

    def connected(self, timeout):
        """Waits until every connection is established, for `timeout` at most; then only reading
        is of interest. Returns how many are."""
        deadline = time.monotonic() + timeout
        count = 0
        waiting = len(self)
        while waiting and time.monotonic() < deadline:
            for sock, data, _, writable in self.ready():
                if writable:
                    waiting -= 1
                    count += sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                    self.only_read(sock, data)
        return count

    def until_closed(self, timeout):
        """Reads until the peer has closed every connection, for `timeout` at most. Returns what
        came on each that is closed."""
        deadline = time.monotonic() + timeout
        answers = []
        came = {}
        while len(self) and time.monotonic() < deadline:
            for sock, data, readable, _ in self.ready():
                if not readable:
                    self.only_read(sock, data)
                    continue
                chunk = take(sock)
                if chunk:
                    came[sock] = (came.get(sock, b"") + chunk)[:4096]
                elif chunk is not None:
                    answers.append(came.pop(sock, b""))
                    self.drop(sock)
        return answers


def take(sock):
    """What can be read now; b"" where the connection has ended, None where nothing is there."""
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def give(sock, data):
    """Sends what fits. Returns how much; None where the connection has ended."""
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return None
