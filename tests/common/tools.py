"""Gets what the suites need, each thing once, all of it under target/: npm packages, a Python
virtual environment, Debian packages where this may install them. What cannot be had is a Missing
with the reason, and whoever wanted it is skipped by name.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLIENTS = os.path.join(ROOT, "tests", "clients")
HOME = os.path.join(ROOT, "target", "clients")


class Missing(Exception):
    """Something is not here and cannot be installed; the message says what and why."""


def end_tidily():
    """Told to end, a script ends what it has started, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def run(command, what, timeout=300, **settings):
    """Runs an installer. Its output is shown only where it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout, **settings)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what}: {error}") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Missing(f"{what}: {' / '.join(lines[-2:])}")
    return done.stdout


@contextlib.contextmanager
def alone():
    """Suites that run side by side install one after another."""
    os.makedirs(HOME, exist_ok=True)
    with open(os.path.join(HOME, "lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def program(name, package):
    """Where a program is; as root, its Debian package is installed for it."""
    if not shutil.which(name):
        with alone():
            install(name, package)
    found = shutil.which(name)
    if not found:
        raise Missing(f"{package} is installed, but there is no {name}")
    return found


def install(name, package):
    """Installs a Debian package, unless another suite has done so meanwhile."""
    if not shutil.which(name):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Missing(f"no {name}, and nobody who may install {package}")
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        try:
            run(command, f"apt-get install {package}", env=environment)
        except Missing:  # the lists of packages may be old, or not there at all
            run(["apt-get", "update"], "apt-get update", env=environment)
            run(command, f"apt-get install {package}", env=environment)


def once(folder, make, *sources):
    """Makes a folder, unless it was made from the same sources before; returns it.

    The mark is written last: an installation that was interrupted is done again.
    """
    digest = hashlib.sha256()
    for source in sources:
        with open(source, "rb") as file:
            digest.update(file.read())
    mark = os.path.join(folder, "made-from.txt")
    with alone():
        if not os.path.exists(mark) or open(mark, encoding="ascii").read() != digest.hexdigest():
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            make(folder)
            with open(mark, "w", encoding="ascii") as file:
                file.write(digest.hexdigest())
    return folder


def node():
    """Node.js, and the environment in which it finds the packages of package-lock.json."""
    found = program("node", "nodejs")
    version = run([found, "--version"], "node --version").strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        raise Missing(f"Node.js {version}; the packages need 20")
    npm = program("npm", "npm")
    sources = [os.path.join(CLIENTS, name) for name in ("package.json", "package-lock.json")]

    def make(folder):
        for source in sources:
            shutil.copy(source, folder)
        run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], "npm ci", cwd=folder)

    folder = once(os.path.join(HOME, "npm"), make, *sources)
    return found, dict(os.environ, NODE_PATH=os.path.join(folder, "node_modules"))


def python():
    """A Python with the packages of requirements.txt."""
    requirements = os.path.join(CLIENTS, "requirements.txt")

    def make(folder):
        virtual_environment(folder)
        pip = [os.path.join(folder, "bin", "pip"), "install", "--quiet", "-r", requirements]
        run(pip, "pip install")

    return os.path.join(once(os.path.join(HOME, "python"), make, requirements), "bin", "python")


def virtual_environment(folder):
    """An empty virtual environment of the Python 3 that runs this."""
    make = [sys.executable, "-m", "venv", folder]
    try:
        run(make, "python3 -m venv")
    except Missing:  # Debian has ensurepip in a package of its own
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise
        run(["apt-get", "install", "-y", "--no-install-recommends", "python3-venv"],
            "apt-get install python3-venv")
        shutil.rmtree(folder, ignore_errors=True)
        run(make, "python3 -m venv")


def tokio():
    """The tokio-tungstenite client of tokio/, built."""
    target = os.path.join(HOME, "tokio")
    manifest = os.path.join(CLIENTS, "tokio", "Cargo.toml")
    run([program("cargo", "cargo"), "build", "--quiet", "--locked", "--manifest-path", manifest,
         "--target-dir", target], "cargo build of the tokio-tungstenite client")
    return os.path.join(target, "debug", "tokio-client")


def java():
    """Java, and the classes of drivers/EventStream.java."""
    compiler = program("javac", "default-jdk-headless")
    source = os.path.join(CLIENTS, "drivers", "EventStream.java")
    folder = once(os.path.join(HOME, "java"),
                  lambda folder: run([compiler, "-d", folder, source], "javac"), source)
    return program("java", "default-jdk-headless"), "-cp", folder


def chromium():
    """Debian's chromium, which Playwright drives."""
    return program("chromium", "chromium")
