"""Run the fast tests on other Pythons, and with the oldest packages that requirements.txt allows; environments lie in .nox/.

    pip install nox
    nox                       every installed Python of 3.10, 3.12, 3.13; then the oldest packages
    nox -s oldest -- -x       one session, with flags for pytest
"""

from pathlib import Path

import nox


@nox.session(python=["3.10", "3.12", "3.13"])
def tests(session):
    session.install("-r", "requirements-dev.txt")
    session.run("python", "-m", "pytest", "-n", "2", "-m", "not slow and not prose", *session.posargs)


@nox.session(python="3.10")
def oldest(session):
    names = ("requirements.txt", "requirements-cluster.txt", "requirements-dev.txt")
    lines = "".join(Path(name).read_text() for name in names).splitlines()
    session.install(*(line.replace(">=", "==") for line in lines if ">=" in line), "-e", ".")
    session.run("python", "-m", "pytest", "-n", "2", "-m", "not slow and not prose", *session.posargs)
