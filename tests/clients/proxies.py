"""nginx, HAProxy and Caddy: with the configurations of tests/proxies, each in front of two servers, and with
those of the book, in front of one."""

import os
import re
import shutil
import subprocess
import tempfile
import time

import tools
from server import Server, free_port, request

CONFIGURATIONS = os.path.join(tools.ROOT, "tests", "proxies")


class Proxy:
    """A proxy and the servers behind it, for one check."""

    name = package = configuration = ""
    count = 2

    def __init__(self, context, *flags, extra="", change=None):
        """`extra` is put in for @EXTRA@; of `change`, a dictionary, each part must be there and is
        replaced."""
        self.program = tools.program(self.package.removesuffix("-light"), self.package)
        self.process, self.servers = None, []
        self.folder = tempfile.mkdtemp(prefix=f"{self.package}-", dir=tools.HOME)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        try:
            flags = ("--log", "warn", *context.flags, *flags)
            for number in range(self.count):
                with open(self.log_of(number), "wb") as log:
                    self.servers.append(Server(context.binary, *flags, log=log))
            text = self.text(extra)
            for part, other in (change or {}).items():
                assert part in text, f"{part} is not in {self.configuration}"
                text = text.replace(part, other)
            self.path = os.path.join(self.folder, self.configuration)
            with open(self.path, "w", encoding="utf-8") as file:
                file.write(text)
            with open(os.path.join(self.folder, "output.log"), "wb") as log:
                self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                                stdout=log, stderr=log)
            self.wait_ready()
        except BaseException:
            self.__exit__()
            raise

    def text(self, extra):
        """The configuration with this check's ports."""
        with open(os.path.join(CONFIGURATIONS, self.configuration), encoding="utf-8") as file:
            text = file.read()
        values = {"PORT": self.port, "FIRST": self.servers[0].port, "SECOND": self.servers[1].port,
                  "EXTRA": extra}
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        return text

    def log_of(self, number):
        return os.path.join(self.folder, f"server-{number}.log")

    def logged(self, number=0):
        """What a server has logged: warnings and worse."""
        with open(self.log_of(number), encoding="utf-8") as file:
            return file.read()

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


def of_the_book(language, ports):
    """The code of the book's chapter on proxies in a language, with other ports."""
    with open(os.path.join(tools.ROOT, "src", "docs", "proxies.md"), encoding="utf-8") as file:
        found = re.search(rf"^ *```{language}\n(.*?)^ *```$", file.read(), re.MULTILINE | re.DOTALL)
    text = found[1]
    for port, other in ports.items():
        assert port in text, f"{port} is not in the book's {language}"
        text = text.replace(port, other)
    return text


class NginxOfTheBook(Nginx):
    name, count = "nginx as in the book", 1
    # What Debian's nginx.conf has around the files in conf.d; and folders of this check's own.
    AROUND = """
daemon off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
"""

    def text(self, extra):
        ports = {"listen 80;": f"listen 127.0.0.1:{self.port};",
                 "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"}
        return f"{self.AROUND}{of_the_book('nginx', ports)}}}\n"


class HAProxyOfTheBook(HAProxy):
    name, count = "HAProxy as in the book", 1

    def text(self, extra):
        return of_the_book("haproxy", {"bind :80": f"bind 127.0.0.1:{self.port}",
                                     "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"})


class CaddyOfTheBook(Proxy):
    name, package, configuration, count = "Caddy as in the book", "caddy", "Caddyfile", 1
    # No port of its own for administration.
    AROUND = "{\n    admin off\n}\n"

    def command(self):
        # What it remembers goes into this check's folder.
        folders = [f"{name}={self.folder}" for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")]
        return ["env", *folders, self.program, "run", "--adapter", "caddyfile", "--config", self.path]

    def text(self, extra):
        # With a scheme, Caddy does not get a certificate for it.
        ports = {"example.org": self.url, "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"}
        return self.AROUND + of_the_book("caddy", ports)
