"""curl: what it prints of a stream, and how it gets files."""

import os
import subprocess
import tempfile
import time

from checks import check
from sse_checks import start


class Output:
    """A command that runs, and what it has printed so far."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL)
        self.raw = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def until(self, condition):
        """Reads until the body fulfils a condition, or ends; returns the body."""
        deadline = time.monotonic() + 10
        while not condition(self.body()):
            assert time.monotonic() < deadline, f"so far: {self.raw[-400:]!r}"
            piece = self.process.stdout.read1(65536)
            if not piece:
                break
            self.raw += piece
        return self.body()

    def body(self):
        return self.raw


class Curl(Output):
    """curl on an event stream, with the header fields before the body."""

    def __init__(self, url, *arguments, topic="*"):
        super().__init__(["curl", "-sSNi", *arguments, f"{url}/events?topic={topic}"])

    def body(self):
        return self.raw.partition(b"\r\n\r\n")[2]


@check("bytes", "a file: a part of it, resumed, not sent again")
def files(context, client):
    content = bytes(range(256)) * 4096
    with tempfile.TemporaryDirectory() as folder:
        www, copy = os.path.join(folder, "www"), os.path.join(folder, "copy")
        os.mkdir(www)
        with open(os.path.join(www, "file.bin"), "wb") as file:
            file.write(content)
        with start(context, "--www", www) as server:
            url = f"{server.url}/file.bin"

            def curl(*arguments):
                command = ["curl", "-sS", "--max-time", "20", "-w", "%{http_code}", "-o", copy]
                done = subprocess.run([*command, *arguments, url], capture_output=True, text=True,
                                      check=False)
                assert done.returncode == 0, f"{arguments}: {done.stderr}"
                with open(copy, "rb") as file:
                    return int(done.stdout), file.read()

            assert curl("-r", "1000-1999") == (206, content[1000:2000])
            assert curl("-r", "-256") == (206, content[-256:])
            with open(copy, "wb") as file:
                file.write(content[:700_000])
            assert curl("-C", "-") == (206, content), "resumed where it was interrupted"
            tags = os.path.join(folder, "tags")
            assert curl("--etag-save", tags) == (200, content)
            assert curl("--etag-compare", tags)[0] == 304
            assert curl("-z", os.path.join(www, "file.bin"))[0] == 304
