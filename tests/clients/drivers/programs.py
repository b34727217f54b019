"""Programs that print a stream as it comes, and a parser of event streams written from the standard
(parser.py). The arguments are the program and its own; `-H FIELD` and the URL are added."""

import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lines import commands, tell  # noqa: E402
from parser import Parser  # noqa: E402

processes = {}


def read(n, url, last):
    command = [*sys.argv[1:], *(["-H", f"Last-Event-ID: {last}"] if last else []), url]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    processes[n] = process
    parser = Parser()
    opened = False
    while piece := os.read(process.stdout.fileno(), 65536):
        if not opened:
            opened = True
            tell(n, "open")
        for event in parser.feed(piece):
            tell(n, "event", name=event.name, data=event.data, id=event.id, retry=parser.retry)
    code = process.wait()
    if code < 0:  # by a signal: ours
        tell(n, "closed")
    else:
        tell(n, "error", detail=f"{sys.argv[1]} ended with {code}")


for command in commands():
    if command["do"] == "open":
        arguments = (command["n"], command["url"], command["last"])
        threading.Thread(target=read, args=arguments, daemon=True).start()
    elif command["do"] == "close":
        processes[command["n"]].kill()
for process in processes.values():
    process.kill()
os._exit(0)
