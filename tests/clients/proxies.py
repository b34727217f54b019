"""nginx, HAProxy and Caddy: with the configurations of tests/proxies, each in front of two servers, and with
those of the book, in front of one."""

import os
import re
import shutil
import tempfile

import program
import tools
from server import Server


class InFront:
    """A proxy and the servers behind it, for one check."""

    count = 2

    def __init__(self, context, *flags, extra="", change=None):
        """`extra` is put in for @EXTRA@; of `change`, a dictionary, each part must be there and is
        replaced."""
        super().__init__(tempfile.mkdtemp(prefix=f"{self.package}-", dir=tools.HOME))
        self.extra, self.change = extra, change or {}
        self.servers = []
        try:
            flags = ("--log", "warn", *context.flags, *flags)
            for number in range(self.count):
                with open(self.log_of(number), "wb") as log:
                    self.servers.append(Server(context.binary, *flags, log=log))
            self.start()
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def values(self):
        return {**super().values(), "FIRST": self.servers[0].port, "SECOND": self.servers[1].port,
                "EXTRA": self.extra}

    def template(self):
        """The configuration with this check's ports, before its changes."""
        return super().text()

    def text(self):
        text = self.template()
        for part, other in self.change.items():
            assert part in text, f"{part} is not in {self.configuration}"
            text = text.replace(part, other)
        return text

    def log_of(self, number):
        return os.path.join(self.folder, f"server-{number}.log")

    def logged(self, number=0):
        """What a server has logged: warnings and worse."""
        with open(self.log_of(number), encoding="utf-8") as file:
            return file.read()

    def end(self):
        super().end()
        for server in self.servers:
            server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Nginx(InFront, program.Nginx):
    pass


class HAProxy(InFront, program.HAProxy):
    pass


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

    def template(self):
        ports = {"listen 80;": f"listen 127.0.0.1:{self.port};",
                 "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"}
        return f"{self.AROUND}{of_the_book('nginx', ports)}}}\n"


class HAProxyOfTheBook(HAProxy):
    name, count = "HAProxy as in the book", 1

    def template(self):
        return of_the_book("haproxy", {"bind :80": f"bind 127.0.0.1:{self.port}",
                                     "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"})


class CaddyOfTheBook(InFront, program.Proxy):
    name, package, configuration, count = "Caddy as in the book", "caddy", "Caddyfile", 1
    # No port of its own for administration.
    AROUND = "{\n    admin off\n}\n"

    def command(self):
        # What it remembers goes into this check's folder.
        folders = [f"{name}={self.folder}" for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")]
        return ["env", *folders, self.program, "run", "--adapter", "caddyfile", "--config", self.path]

    def template(self):
        # With a scheme, Caddy does not get a certificate for it.
        ports = {"example.org": self.url, "127.0.0.1:3000": f"127.0.0.1:{self.servers[0].port}"}
        return self.AROUND + of_the_book("caddy", ports)
