"""Other programs that a suite needs around the server: started in a folder of their own, and ended by
their id."""

import os
import re
import signal
import subprocess

import tools
from server import free_port, request, until

CONFIGURATIONS = os.path.join(tools.ROOT, "tests", "proxies")


class Program:
    """A program that listens on `port`. What it says goes to output.log in its folder."""

    name = package = ""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        self.program = tools.program(self.package.removesuffix("-light"), self.package)
        os.makedirs(folder, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def command(self):
        raise NotImplementedError

    def answers(self):
        """Whether it is ready."""
        raise NotImplementedError

    def start(self):
        with open(self.log_path(), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.folder)
        until(self.is_ready, f"{self.name} answers")

    def is_ready(self):
        if self.process.poll() is not None:
            with open(self.log_path(), encoding="utf-8", errors="replace") as log:
                raise RuntimeError(f"{self.name} did not start: {log.read()[-300:]}")
        return self.answers()

    def log_path(self):
        return os.path.join(self.folder, "output.log")

    def end(self):
        """Asks it to end, so that it ends its own children, too."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


class Proxy(Program):
    """A reverse proxy with one of the configurations in tests/proxies."""

    configuration = ""

    def values(self):
        """What is put in for each @NAME@."""
        return {"PORT": self.port}

    def text(self):
        """The configuration."""
        values = self.values()
        with open(os.path.join(CONFIGURATIONS, self.configuration), encoding="utf-8") as file:
            return re.sub("@([A-Z]+)@", lambda found: str(values[found[1]]), file.read())

    def start(self):
        self.path = os.path.join(self.folder, self.configuration)
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(self.text())
        super().start()

    def answers(self):
        try:
            return request(f"{self.url}/healthz")[0] == 200
        except OSError:
            return False


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
