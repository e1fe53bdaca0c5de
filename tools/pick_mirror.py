"""Choose the first mirror of an ordered list that answers. Standard library only, Python 3.10+.

    python3 tools/pick_mirror.py python-index
    python3 tools/pick_mirror.py first --probe dists/trixie/InRelease URL URL …

Prints the chosen address on stdout and a line on stderr for each one that was skipped. Ends with
code 3 and one sentence when none answers. The role apt_mirror runs this same file on its machines.
"""

from __future__ import annotations

import argparse
import configparser
import http.client
import os
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

PYTHON_INDEXES = (
    "https://pypi.org/simple",
    "https://mirrors.aliyun.com/pypi/simple",
    "https://mirrors.cloud.tencent.com/pypi/simple",
)
# The page of one small project: an index that serves it serves the rest.
PYTHON_PROBE = "pip/"
TIMEOUT_SECONDS = 6.0


class NoMirrorReachable(Exception):
    """Not one mirror of the list answered; the text names each with its reason and a remedy."""


def without_password(url: str) -> str:
    """URL with its user and password, if any, replaced by ``…``."""
    return re.sub(r"(?<=://)[^/@]*@", "…@", url)


def _late(timeout_seconds: float) -> str:
    return f"no answer within {timeout_seconds:g} s"


def _ask(url: str, timeout_seconds: float) -> str | None:
    """GET URL and read a first piece of the answer; None when all is well, else what is wrong."""
    request = urllib.request.Request(url, headers={"User-Agent": "deskline-pick-mirror"})  # noqa: S310  http and https only, checked in why_not
    reason: str | None = None
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:  # noqa: S310  see above
            if not answer.read(1):
                reason = "answered with an empty page"
    except urllib.error.HTTPError as error:
        reason = f"answered {error.code} {error.reason}".rstrip()
    except urllib.error.URLError as error:
        late = isinstance(error.reason, TimeoutError)
        reason = _late(timeout_seconds) if late else str(error.reason)
    except TimeoutError:
        reason = _late(timeout_seconds)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
    return reason


def why_not(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Why URL cannot be used, or None when it answers with content.

    The whole attempt is bounded by ``timeout_seconds`` (a socket's own time limit starts anew with
    every byte and does not cover the name look-up), so it runs in a thread that may stay behind.
    """
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        return "not an http:// or https:// address"
    outcome: list[str | None] = []
    attempt = threading.Thread(
        target=lambda: outcome.append(_ask(url, timeout_seconds)), daemon=True
    )
    attempt.start()
    attempt.join(timeout_seconds)
    return outcome[0] if outcome else _late(timeout_seconds)


def first(
    urls: Sequence[str], probe: str = "", *, timeout_seconds: float = TIMEOUT_SECONDS
) -> tuple[str, list[str]]:
    """The first of URLS that serves URL/PROBE, and a sentence for each one skipped before it.

    Raises NoMirrorReachable when the list is empty or none answers.
    """
    skipped: list[str] = []
    for url in urls:
        reason = why_not(f"{url.rstrip('/')}/{probe}", timeout_seconds)
        if reason is None:
            return url, skipped
        skipped.append(f"skipped {without_password(url)}: {reason}")
    if not skipped:
        raise NoMirrorReachable("The list of mirrors is empty: name at least one address.")
    raise NoMirrorReachable(
        f"None of {len(skipped)} mirrors can be reached ({'; '.join(skipped)}). Check this"
        " machine's network, name servers and proxy, or name a mirror that it can reach."
    )


def configured_python_index(environment: Mapping[str, str]) -> str | None:
    """The index that pip or uv was told to use, or None.

    Looks at the variables of uv and pip, then at pip's configuration files
    (https://pip.pypa.io/en/stable/topics/configuration/).
    """
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if environment.get(name):
            return environment[name]
    home = Path(environment.get("HOME", "/nonexistent"))
    settings = Path(environment.get("XDG_CONFIG_HOME", home / ".config"))
    named = environment.get("PIP_CONFIG_FILE")
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", settings / "pip/pip.conf"]
    if named:
        files = [] if named == os.devnull else [*files, Path(named)]
    chosen = None
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip itself will say what is wrong with it
        chosen = parser.get("global", "index-url", fallback=chosen)
    return chosen


def python_index(
    environment: Mapping[str, str] = os.environ, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> str:
    """The Python package index to use; says on stderr which ones were skipped.

    What pip or uv is already configured with wins unasked. DESKLINE_PYTHON_INDEXES (addresses
    separated by spaces or commas) replaces the built-in list. Raises NoMirrorReachable.
    """
    configured = configured_python_index(environment)
    if configured:
        return configured
    own = re.split(r"[\s,]+", environment.get("DESKLINE_PYTHON_INDEXES", "").strip())
    urls = [url for url in own if url] or list(PYTHON_INDEXES)
    try:
        chosen, skipped = first(urls, PYTHON_PROBE, timeout_seconds=timeout_seconds)
    except NoMirrorReachable as failure:
        raise NoMirrorReachable(
            f"{failure} For the Python index: set DESKLINE_PYTHON_INDEXES or PIP_INDEX_URL."
        ) from failure
    for line in skipped:
        print(f"Python index: {line}", file=sys.stderr, flush=True)
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 and the address on stdout, or 3 and a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="pick_mirror.py", description="Choose a mirror.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("python-index", help="the Python package index to use on this machine")
    any_list = verbs.add_parser("first", help="the first address of a list that answers")
    any_list.add_argument("--probe", default="", help="the path that must be there")
    any_list.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds for each")
    any_list.add_argument("urls", nargs="+", metavar="URL")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "python-index":
            print(python_index())
        else:
            chosen, skipped = first(options.urls, options.probe, timeout_seconds=options.timeout)
            print(chosen)
            for line in skipped:
                print(line, file=sys.stderr)
    except NoMirrorReachable as failure:
        print(failure, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
