"""What a scenario runs: threadcast servers that come back where they were, Redis, proxies. Each is ended
by its id, whatever happens."""

import os
import re
import signal
import subprocess
import time

import tools
from server import Server, free_port, request, until

CONFIGURATIONS = os.path.join(tools.ROOT, "tests", "proxies")


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
        """(status, body) of /healthz."""
        status, _, body = request(f"{self.url}/healthz")
        return status, body

    def check_alive(self):
        code = self.server.process.poll()
        if code is not None:
            raise AssertionError(f"{self.name} has ended by itself with {code}")

    def logged(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()


class Program:
    """Another program that listens on a port."""

    def __init__(self, folder, name):
        self.folder, self.name = os.path.join(folder, name), name
        os.makedirs(self.folder, exist_ok=True)
        self.port = free_port()
        self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with open(os.path.join(self.folder, "output.log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.folder)
        until(self.is_ready, f"{self.name} is ready; see {self.folder}/output.log")

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} did not start; see {self.folder}/output.log")
        return self.answers()

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


class Redis(Program):
    """A redis-server. Without `persistent` it comes back empty."""

    def __init__(self, folder, name="redis", persistent=False):
        super().__init__(folder, name)
        self.program = tools.program("redis-server", "redis-server")
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


class Proxy(Program):
    """A proxy with one port where clients go to any server and one where they come back to theirs."""

    def __init__(self, folder, nodes):
        super().__init__(folder, self.label)
        self.sticky = free_port()
        self.program = tools.program(self.package.removesuffix("-light"), self.package)
        values = {"PORT": self.port, "STICKY": self.sticky,
                  # Where there is one server, it is all three.
                  **dict(zip(("FIRST", "SECOND", "THIRD"), [node.port for node in nodes] * 3))}
        with open(os.path.join(CONFIGURATIONS, self.configuration), encoding="utf-8") as file:
            text = re.sub("@([A-Z]+)@", lambda found: str(values[found[1]]), file.read())
        self.path = os.path.join(self.folder, self.configuration)
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)

    def answers(self):
        try:
            return all(request(f"http://127.0.0.1:{port}/healthz")[0] == 200
                       for port in (self.port, self.sticky))
        except OSError:
            return False


class Nginx(Proxy):
    label, package, configuration = "nginx", "nginx-light", "nginx-cluster.conf"

    def command(self):
        # Workers that root starts get another user, who may not write where this is checked out.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        return [self.program, "-p", self.folder, "-c", self.path, *user]

    def kill(self):
        # The master's end by SIGKILL would leave its worker behind.
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                super().kill()


class HAProxy(Proxy):
    label, package, configuration = "haproxy", "haproxy", "haproxy-cluster.cfg"

    def command(self):
        return [self.program, "-db", "-f", self.path]


def build_clock(folder):
    """The shared object of clock.c: the variables that set a server's clock back, and the file that says
    by how many seconds."""
    library, file = os.path.join(folder, "clock.so"), os.path.join(folder, "clock-set-back")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clock.c")
    tools.run([tools.program("cc", "gcc"), "-shared", "-fPIC", "-o", library, source], "cc of clock.c")
    return {"LD_PRELOAD": library, "CLOCK_SET_BACK": file}, file


def wait_seconds(seconds, *nodes):
    """Sleeps; fails at once where one of these servers ends by itself."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for node in nodes:
            node.check_alive()
        time.sleep(min(left, 0.2))
