"""nginx and HAProxy with the configurations of tests/proxies, each in front of two servers."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time

import tools
from server import request
from sse_checks import start

CONFIGURATIONS = os.path.join(tools.ROOT, "tests", "proxies")


class Proxy:
    """A proxy and the two servers behind it, for one check."""

    name = package = configuration = ""

    def __init__(self, context, *flags, extra="", changes=None):
        self.program = tools.program(self.package.removesuffix("-light"), self.package)
        self.process, self.servers = None, []
        self.folder = tempfile.mkdtemp(prefix=f"{self.package}-", dir=tools.HOME)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            self.servers = [start(context, *flags)]
            self.servers.append(start(context, *flags))
            self.path = self.configure(extra, changes or {})
            with open(os.path.join(self.folder, "output.log"), "wb") as log:
                self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log)
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise

    def configure(self, extra, changes):
        """Writes the configuration with this check's ports and returns where."""
        with open(os.path.join(CONFIGURATIONS, self.configuration), encoding="utf-8") as file:
            text = file.read()
        values = {"PORT": self.port, "FIRST": self.servers[0].port, "SECOND": self.servers[1].port,
                  "EXTRA": extra}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        for old, new in changes.items():
            assert old in text, f"{old} is not in {self.configuration}"
            text = text.replace(old, new)
        path = os.path.join(self.folder, self.configuration)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def command(self):
        raise NotImplementedError

    def wait_ready(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                if request(f"{self.url}/healthz")[0] == 200:
                    return
            except OSError:
                pass
            running = self.process.poll() is None
            if not running or time.monotonic() > deadline:
                with open(os.path.join(self.folder, "output.log"), encoding="utf-8") as log:
                    raise RuntimeError(f"{self.name} did not start: {log.read()[-300:]}")
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nginx(Proxy):
    name, package, configuration = "nginx", "nginx-light", "nginx.conf"

    def command(self):
        # Workers that root starts get another user, who may not write where this is checked out.
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        return [self.program, "-p", self.folder, "-c", self.path, *user]


class HAProxy(Proxy):
    name, package, configuration = "HAProxy", "haproxy", "haproxy.cfg"

    def command(self):
        return [self.program, "-db", "-f", self.path]


def free_port():
    """A port that is free now; a proxy cannot be asked which one it got. Below the range from which
    the kernel takes ports for connections: one of those could be gone before the proxy listens."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            port = random.randrange(10_000, 32_000)
            with socket.create_server(("127.0.0.1", port)):
                return port
    raise RuntimeError("of 100 ports none is free")
