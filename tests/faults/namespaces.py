"""Two network namespaces with a cable between them that can be pulled.

Loopback never loses a packet and never goes down, so a client that vanishes without a word needs
a network of its own. Everything here is made by the harness, and taken down by it.
"""

import contextlib
import ctypes
import os
import subprocess
import threading

from frame import Skip

CLONE_NEWNET = 0x40000000
SERVER, CLIENT = "10.203.77.1", "10.203.77.2"


def ip(*arguments):
    command = ["ip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        raise Skip(f"network namespaces need the program 'ip': {error}") from error
    if done.returncode != 0:
        raise Skip(f"'{' '.join(command)}' is not permitted here: {done.stderr.strip()}")


@contextlib.contextmanager
def entered(name):
    """In this block, this thread's new sockets and processes belong to that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path):
        fd = os.open(path, os.O_RDONLY)
        try:
            if libc.setns(fd, CLONE_NEWNET) != 0:
                raise Skip(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(fd)

    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
    try:
        enter(f"/run/netns/{name}")
        try:
            yield
        finally:
            if libc.setns(own, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "cannot return to the network namespace")
    finally:
        os.close(own)


class Cable:
    """The two namespaces and the link."""

    def __init__(self):
        # The process's number makes the names unique, and tells whose they are.
        self.near = f"faults-{os.getpid()}-near"
        self.far = f"faults-{os.getpid()}-far"
        self.made = []

    def __enter__(self):
        if os.getuid() != 0:
            raise Skip("network namespaces need root")
        try:
            for name in (self.near, self.far):
                ip("netns", "add", name)
                self.made.append(name)
                ip("-n", name, "link", "set", "lo", "up")
            ip("-n", self.near, "link", "add", "cable0", "type", "veth",
               "peer", "name", "cable1", "netns", self.far)
            ip("-n", self.near, "address", "add", f"{SERVER}/24", "dev", "cable0")
            ip("-n", self.far, "address", "add", f"{CLIENT}/24", "dev", "cable1")
            self.plug()
            ip("-n", self.near, "link", "set", "cable0", "up")
        except Skip:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in self.made:
            # Takes the link with it.
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def plug(self):
        ip("-n", self.far, "link", "set", "cable1", "up")

    def pull(self):
        """The far end goes down: nothing is refused, nothing answers any more."""
        ip("-n", self.far, "link", "set", "cable1", "down")


@contextlib.contextmanager
def inside():
    """The whole scenario in the near namespace, on a server that listens on both addresses."""
    with Cable() as cable, entered(cable.near):
        yield {"listen": "0.0.0.0", "cable": cable}
