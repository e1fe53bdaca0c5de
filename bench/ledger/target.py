"""Where requests may go: this computer, the local test machines, or a server of one's own."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
from dataclasses import dataclass
from urllib.parse import urlsplit

BRIDGE = "deskline0"
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class TargetRefused(Exception):
    """An address that must not be spoken to; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """One server: the address that connections go to, and the name that it is asked for."""

    scheme: str
    host: str
    port: int
    address: str

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS settings, with certificates checked; None for plain connections."""
        return ssl.create_default_context() if self.scheme in ("https", "wss") else None

    @property
    def host_header(self) -> str:
        """The value of the Host header (RFC 9110 §7.2)."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def find(url: str, *, mine: bool) -> Target:
    """The target of a URL, resolved once, so that what was checked is what is spoken to.

    ``mine``: the caller says that the server is theirs, so any address is allowed. Raises
    :class:`TargetRefused`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise TargetRefused(f"{url!r} is no URL: give one as http://127.0.0.1:8000") from None
    if parts.scheme not in DEFAULT_PORTS or not host or parts.path not in ("", "/"):
        raise TargetRefused(
            f"{url!r} cannot be used: give scheme, host and port as http://127.0.0.1:8000"
        )
    port = port or DEFAULT_PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetRefused(f"{host} has no address ({error}): check the URL") from None
    # IPv4 first: the servers of `make run` listen on it only
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    address = str(found[0][4][0])
    if not mine and not is_local(address):
        raise TargetRefused(
            f"{host} ({address}) is neither this computer nor a local test machine on {BRIDGE}. "
            "This tool sends many requests: when the server is yours, say --i-own-this-server."
        )
    return Target(parts.scheme, host, port, address)


def is_local(address: str) -> bool:
    """Whether packets to the address stay on this computer or go to the test machines' bridge."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    way = subprocess.run(
        ["ip", "route", "get", address], capture_output=True, text=True, check=False
    )
    return way.returncode == 0 and f" dev {BRIDGE} " in way.stdout
