"""What a scenario runs: threadcast servers that come back where they were, Redis, proxies. Each is ended
by its id, whatever happens."""

import json
import os
import signal
import subprocess

import program
import tools
from server import Server, free_port, request, until

SET_BACK_SECONDS = 3600


class Node:
    """A threadcast server that keeps its port and its log when it is started again."""

    def __init__(self, binary, folder, name, *flags, variables=None):
        self.binary, self.name, self.variables = binary, name, variables
        self.flags = ("--log", "info", "--drain", "2s", *flags)
        self.port = free_port()
        self.url, self.address = f"http://127.0.0.1:{self.port}", ("127.0.0.1", self.port)
        self.log_path = os.path.join(folder, f"{name}.log")
        self.server = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.kill()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.server = Server(self.binary, *self.flags, port=self.port, log=log,
                                 variables=self.variables)

    def stop(self):
        """SIGTERM, as an operator ends it."""
        code = self.server.stop()
        if code != 0:
            raise AssertionError(f"{self.name} ended with {code} after SIGTERM")

    def kill(self):
        """SIGKILL, as a crash ends it."""
        self.server.kill()

    def pause(self):
        self.server.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.server.process.send_signal(signal.SIGCONT)

    def health(self):
        """What /healthz says where it answers 200."""
        status, _, body = request(f"{self.url}/healthz")
        return json.loads(body)["status"] if status == 200 else status

    def check_alive(self):
        code = self.server.process.poll()
        if code is not None:
            raise AssertionError(f"{self.name} has ended by itself with {code}")


class Redis(program.Program):
    """A redis-server. Without `persistent` it comes back empty."""

    package = "redis-server"

    def __init__(self, folder, name="redis", persistent=False):
        super().__init__(os.path.join(folder, name))
        self.name = name
        self.cli = tools.program("redis-cli", "redis-tools")
        self.persistent = persistent

    def command(self):
        append = ["--appendonly", "yes", "--appendfsync", "always"] if self.persistent else []
        return [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
                "--dir", self.folder, "--repl-diskless-sync-delay", "0", *append]

    def answers(self):
        return self.tell("PING") == "PONG"

    def tell(self, *command):
        """Sends a command; returns the answer as text."""
        done = subprocess.run([self.cli, "-p", str(self.port), *command], capture_output=True, text=True,
                              timeout=10, check=False)
        return done.stdout.strip()

    def follow(self, master):
        """Becomes the master's replica, and waits until it has all of it."""
        self.tell("REPLICAOF", "127.0.0.1", str(master.port))
        until(lambda: "master_link_status:up" in self.tell("INFO", "replication"), "the replica follows")


class InFront:
    """A proxy with one port where clients go to any server, and one where they come back to theirs."""

    def __init__(self, folder, nodes):
        super().__init__(os.path.join(folder, self.name))
        self.sticky = free_port()
        # Where there is one server, it is all three.
        self.ports = ([node.port for node in nodes] * 3)[:3]

    def values(self):
        return {**super().values(), "STICKY": self.sticky,
                **dict(zip(("FIRST", "SECOND", "THIRD"), self.ports))}


class Nginx(InFront, program.Nginx):
    configuration = "nginx-cluster.conf"


class HAProxy(InFront, program.HAProxy):
    configuration = "haproxy-cluster.cfg"


def build_clock(folder):
    """The shared object of clock.c: the variables that set a server's clock back, and the file that says
    by how many seconds."""
    library, file = os.path.join(folder, "clock.so"), os.path.join(folder, "clock-set-back")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clock.c")
    tools.run([tools.program("cc", "gcc"), "-shared", "-fPIC", "-o", library, source], "cc of clock.c")
    return {"LD_PRELOAD": library, "CLOCK_SET_BACK": file}, file


def set_back(cluster):
    """Sets the clock of a scenario back."""
    with open(cluster.clock, "w", encoding="ascii") as file:
        file.write(str(SET_BACK_SECONDS))
