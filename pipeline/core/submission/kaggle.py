"""Kaggle's own command-line client, run as a subprocess: it alone reads the credentials, and they
pass through no log.

Only whether credentials exist is looked at here, never what they are; whatever the client prints is
relayed with the values of its credential variables redacted.
"""

import csv
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from pipeline.core.runtime.errors import UserError

SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_KEY")  # variables whose values must not be printed
SETUP = (
    "create a token at kaggle.com/settings (API) and put it in ~/.kaggle/access_token or in "
    "KAGGLE_API_TOKEN, or run `kaggle auth login`"
)
CREDENTIAL_FILES = ("access_token", "kaggle.json", "credentials.json")
SUBMISSIONS_A_PAGE = 100  # submissions asked for at once


def has_credentials() -> bool:
    """True when one of the client's four ways to log in is set up; whether Kaggle accepts it, only
    Kaggle can say."""
    if os.environ.get("KAGGLE_API_TOKEN"):
        return True
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return True
    folder = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    return any((folder / name).is_file() for name in CREDENTIAL_FILES)


def submit_command(
    slug: str, file: Path, message: str, kernel: str = "", version: int | None = None
) -> list[str]:
    """The client's arguments that submit a file, or the output of that name of a notebook's
    version."""
    command = ["competitions", "submit", slug]
    # A code competition takes what a notebook writes when Kaggle runs it on the hidden images: a
    # notebook's output is known by its name alone, a file by its path.
    if kernel:
        command += ["-k", kernel, "-v", str(version), "-f", file.name]
    else:
        command += ["-f", str(file)]
    return [*command, "-m", message]


def shown(arguments: list[str]) -> str:
    """The command as one would type it."""
    return shlex.join(["kaggle", *arguments])


def run_client(arguments: list[str]) -> str:
    """Run the client and return what it printed; UserError with its last line when it fails."""
    # As a module of this Python, so that no other installation on the PATH is taken.
    command = [sys.executable, "-m", "kaggle", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # The client ends with the reason, after any warnings.
        output = done.stderr.strip() or done.stdout.strip() or "nothing"
        last_line = output.splitlines()[-1]
        if "No module named kaggle" in last_line:
            raise UserError("the Kaggle client is not installed: pip install -r requirements.txt")
        failed = f"`{shown(arguments)}` failed with status {done.returncode}"
        raise UserError(f"{failed}: {redacted(last_line)}")
    return redacted(done.stdout)


def redacted(text: str) -> str:
    """The text without the values of the credential variables."""
    for name in SECRETS:
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return text


def submissions(slug: str) -> list[dict[str, str]]:
    """What Kaggle knows of our submissions, newest first: description, status, publicScore,
    privateScore and more."""
    text = run_client(
        ["competitions", "submissions", slug, "--csv", "--page-size", str(SUBMISSIONS_A_PAGE)]
    )
    # Warnings of the client, of an old version say, come before the table.
    lines = text.splitlines()
    headers = [number for number, line in enumerate(lines) if "publicScore" in line]
    start = headers[0] if headers else len(lines)
    return list(csv.DictReader(io.StringIO("\n".join(lines[start:]))))
