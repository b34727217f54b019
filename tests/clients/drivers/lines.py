"""How the clients written in Python talk with run.py: see ../driver.py."""

import json
import sys
import threading

_writing = threading.Lock()


def tell(n, what, **rest):
    with _writing:
        sys.stdout.write(json.dumps({"n": n, "is": what, **rest}) + "\n")
        sys.stdout.flush()


def commands():
    """What run.py asks for, until it has no more to ask."""
    for line in sys.stdin:
        yield json.loads(line)
