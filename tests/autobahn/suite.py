"""The Autobahn test suite itself: where it comes from, and one run of it.

It is a program of 2018 for Python 2.7, so it gets that Python's own virtual environment, made by
the last virtualenv that could do so.
"""

import glob
import json
import os
import shutil
import subprocess

import tools

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv==20.21.1"
HOME = os.path.join(tools.ROOT, "target", "autobahn")
# A case where nobody answers waits for some seconds; the whole of it takes minutes.
TIMEOUT = 1200


def python2():
    """A Python 2.7: the one in the path, or one of pyenv's."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [shutil.which("python2.7"), *glob.glob(f"{pyenv}/versions/2.7*/bin/python2.7")]
    for candidate in filter(None, candidates):
        # What pyenv puts in the path is there, but may not work.
        done = subprocess.run([candidate, "-c", "import sys; print(sys.version_info[0])"],
                              capture_output=True, text=True, check=False)
        if done.stdout.strip() == "2":
            return candidate
    raise tools.Missing("the suite needs Python 2.7, in the path or from pyenv")


def install():
    """Where the suite's program is."""
    interpreter = python2()

    def make(folder):
        helper = os.path.join(folder, "virtualenv")
        tools.virtual_environment(helper)
        tools.run([f"{helper}/bin/pip", "install", "--quiet", VIRTUALENV], "pip install virtualenv")
        own = os.path.join(folder, "python2")
        tools.run([f"{helper}/bin/virtualenv", "--quiet", "-p", interpreter, own], "virtualenv")
        tools.run([f"{own}/bin/pip", "install", "--quiet", SUITE], f"pip install {SUITE}")

    folder = tools.once(os.path.join(HOME, "suite"), make, os.path.abspath(__file__))
    return os.path.join(folder, "python2", "bin", "wstest")


def perform(wstest, agent, url, cases):
    """Runs cases against a server; returns what the suite wrote about each, by its number."""
    name = f"reports-{agent}-{cases[0].split('.')[0]}-of-{len(cases)}"
    reports = os.path.join(HOME, name)
    shutil.rmtree(reports, ignore_errors=True)
    os.makedirs(reports)
    specification = {
        "outdir": reports,
        "servers": [{"agent": agent, "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = os.path.join(reports, "specification.json")
    with open(path, "w", encoding="ascii") as file:
        json.dump(specification, file)
    with open(os.path.join(reports, "output.txt"), "w", encoding="utf-8") as output:
        done = subprocess.run([wstest, "-m", "fuzzingclient", "-s", path], cwd=reports, check=False,
                              stdout=output, stderr=output, timeout=TIMEOUT)
    index = os.path.join(reports, "index.json")
    if done.returncode or not os.path.exists(index):
        raise RuntimeError(f"the suite ended with {done.returncode}; see {output.name}")
    with open(index, encoding="utf-8") as file:
        return json.load(file).get(agent, {})
