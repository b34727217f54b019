"""The server under attack: started, looked at from outside, stopped."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

import server
from wire import TOKEN

# A user that nothing else runs as: the kernel counts processes and threads by user, and does not
# limit root's. (Any unused number will do; it needs no entry in a password file.)
USER = 61999


@dataclass
class Figures:
    """What /proc says of the process."""

    memory: int  # KiB, resident
    threads: int
    descriptors: int


class Server(server.Server):
    """A release server on a free port, as a user of its own where that is possible."""

    def __init__(self, binary, flags=(), listen="127.0.0.1"):
        self.folder = tempfile.mkdtemp(prefix="faults-")
        # Another user may not be able to reach the folder that the binary was built in.
        os.chmod(self.folder, 0o755)
        program = os.path.join(self.folder, "threadcast")
        shutil.copy(binary, program)
        os.chmod(program, 0o755)
        self.as_user = {}
        if os.getuid() == 0:
            self.as_user = {"user": USER, "group": USER, "extra_groups": []}
        self.log_path = os.path.join(self.folder, "log")
        flags = ("--token", TOKEN, "--log", "warn", *flags)
        try:
            with open(self.log_path, "wb") as log:
                super().__init__(program, *flags, listen=listen, log=log, **self.as_user)
        except RuntimeError as error:
            text = self.log()
            self.kill()
            raise RuntimeError(f"{error}: {text}") from error
        self.pid = self.process.pid

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def alive(self):
        return self.process.poll() is None

    def status(self, name):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            return int(re.search(rf"^{name}:\s+(\d+)", status.read(), re.M)[1])

    def figures(self):
        descriptors = len(os.listdir(f"/proc/{self.pid}/fd"))
        return Figures(self.status("VmRSS"), self.status("Threads"), descriptors)

    def forget_peak(self):
        """From now on `peak_memory` counts from here."""
        try:
            with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
        except OSError:
            pass  # then the peak is that since the start, which only makes checks stricter

    def peak_memory(self):
        return self.status("VmHWM")

    def thread_names(self):
        names = []
        for task in os.listdir(f"/proc/{self.pid}/task"):
            try:
                with open(f"/proc/{self.pid}/task/{task}/comm", encoding="utf-8") as comm:
                    names.append(comm.read().strip())
            except OSError:
                pass  # ended meanwhile
        return names

    def soft_limit(self, what):
        """From /proc, which needs no permission; 'unlimited' is -1."""
        name = {resource.RLIMIT_NOFILE: "Max open files", resource.RLIMIT_NPROC: "Max processes"}
        with open(f"/proc/{self.pid}/limits", encoding="ascii") as limits:
            line = next(line for line in limits if line.startswith(name[what]))
        soft = line[len(name[what]) :].split()[0]
        return resource.RLIM_INFINITY if soft == "unlimited" else int(soft)

    @contextlib.contextmanager
    def limited(self, what, most):
        """Sets a soft limit of the running server, for a while."""
        before = self.set_limit(what, most)
        try:
            yield
        finally:
            self.set_limit(what, before)

    def set_limit(self, what, most):
        """Returns the one before."""
        soft = self.soft_limit(what)
        # By a process of the server's own user: not even root may change another user's limits
        # everywhere (it takes CAP_SYS_RESOURCE), but everybody may change their own.
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if self.as_user:
                    os.setgroups([])
                    os.setresgid(USER, USER, USER)
                    os.setresuid(USER, USER, USER)
                hard = resource.prlimit(self.pid, what)[1]
                resource.prlimit(self.pid, what, (most, hard))
                code = 0
            finally:
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise PermissionError("a process of the server's user may not set its limits")
        return soft

    def terminate(self, timeout=10):
        """SIGTERM. Returns (exit code or None, seconds)."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        return code, time.monotonic() - start

    def kill(self):
        """The end in any case, also of the files."""
        super().kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Sampler(threading.Thread):
    """The highest figures seen between its start and its stop."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.highest = server.figures()
        self.at_begin = self.since_begin = 0
        self.ended = threading.Event()
        server.forget_peak()
        self.start()

    def begin(self):
        """From now on `peak` and `rise` count from here."""
        self.look()
        self.server.forget_peak()
        self.at_begin = self.since_begin = self.server.figures().memory

    def peak(self):
        """The most memory since `begin`, in KiB."""
        self.look()
        return self.since_begin

    def rise(self):
        """How much that is more than there was then."""
        return self.peak() - self.at_begin

    def run(self):
        while not self.ended.wait(0.05):
            self.look()

    def look(self):
        try:
            now = self.server.figures()
            peak = self.server.peak_memory()
        except (OSError, TypeError):
            return  # the process has ended; whoever asks for its state will notice
        high = self.highest
        high.memory = max(high.memory, now.memory, peak)
        self.since_begin = max(self.since_begin, now.memory, peak)
        high.threads = max(high.threads, now.threads)
        high.descriptors = max(high.descriptors, now.descriptors)

    def stop(self):
        self.ended.set()
        self.join()
        self.look()
        return self.highest
