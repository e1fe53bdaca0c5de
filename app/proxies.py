"""The client's real address behind trusted proxies."""

from __future__ import annotations

import ipaddress

from app.config import Network


def client_address(peer: str, forwarded_for: str | None, trusted: tuple[Network, ...]) -> str:
    """The address of the client.

    ``peer`` is the other end of the connection. When it is a trusted proxy, X-Forwarded-For is
    read from its right end, where the proxies append, up to the first address that is not a
    trusted proxy; what stands left of it was sent by the client and proves nothing.
    """
    address = peer
    hops = [hop.strip() for hop in (forwarded_for or "").split(",") if hop.strip()]
    while is_trusted(address, trusted) and hops:
        hop = _parse(hops.pop())
        if hop is None:
            break
        address = str(hop)
    return address


def client_network(address: str) -> str:
    """What limits count by: an IPv4 address, or the /64 network that an IPv6 client has for
    itself (RFC 6177) and may change its address in with every request."""
    parsed = _parse(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def is_trusted(peer: str, trusted: tuple[Network, ...]) -> bool:
    """Whether the other end of a connection is a proxy whose headers are believed."""
    address = _parse(peer)
    return address is not None and any(address in network for network in trusted)
