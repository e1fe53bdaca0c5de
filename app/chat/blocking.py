"""Networks whose visitors may not write: single addresses and ranges, IPv4 and IPv6."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import audit, pages
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

NETWORKS_MAX: Final = 5000
# a wider range is a slip of the finger that would shut out a whole provider
SHORTEST_PREFIX: Final = {4: 8, 6: 16}

_n, _u = schema.blocked_networks, schema.users


def normalized_network(text: str) -> str:
    """An address or a range as it is stored: its first address, a slash, the prefix length.

    Raises ValueError with what it should be.
    """
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            "should be an address or a range, as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48"
        ) from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            network = ipaddress.ip_network((mapped, network.prefixlen - 96))
    if network.prefixlen < SHORTEST_PREFIX[network.version]:
        shortest = SHORTEST_PREFIX[network.version]
        raise ValueError(f"should be no wider than /{shortest}: it would block too many people")
    return str(network)


class NetworkSet:
    """Networks, ready to be asked: one look into a set per prefix length that occurs."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}
        for text in networks:
            network = ipaddress.ip_network(text)
            host_bits = network.max_prefixlen - network.prefixlen
            first = int(network.network_address) >> host_bits
            self._by_length.setdefault((network.version, host_bits), set()).add(first)

    def __contains__(self, address: str) -> bool:
        if not self._by_length:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        number = int(parsed)
        return any(
            version == parsed.version and number >> host_bits in firsts
            for (version, host_bits), firsts in self._by_length.items()
        )


def load(database: Database) -> NetworkSet:
    """All blocked networks. Blocking."""
    with database.read() as connection:
        return NetworkSet(connection.execute(select(_n.c.network)).scalars())


def wire(row: Any) -> dict[str, Any]:
    """The BlockedNetwork of the API."""
    by = {"id": row.created_by, "name": row.name, "avatar_url": row.avatar_url}
    return {
        "id": row.id,
        "network": row.network,
        "reason": row.reason,
        "created_by": by if row.name is not None else None,
        "created_at": clock.wire(row.created_at),
    }


def page(
    database: Database, *, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Blocked networks, the newest first, and the cursor of the next page.

    Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    query = _SELECT.order_by(_n.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        (last_id,) = pages.read_cursor(cursor, int)
        query = query.where(_n.c.id < last_id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return (
        [wire(row) for row in rows[:limit]],
        pages.make_cursor(rows[limit - 1].id) if len(rows) > limit else None,
    )


def create(database: Database, actor: Actor, *, network: str, reason: str) -> dict[str, Any]:
    """Block a network in its stored form. Raises :class:`Refused` when it is. Blocking."""
    try:
        with database.write() as connection:
            count = connection.execute(select(func.count()).select_from(_n)).scalar_one()
            if count >= NETWORKS_MAX:
                raise Refused("conflict", f"{NETWORKS_MAX} networks are blocked: remove some.")
            result = connection.execute(
                insert(_n).values(
                    network=network, reason=reason, created_by=actor.id, created_at=clock.now()
                )
            )
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101  every dialect used here gives the new id
            audit.record(
                connection,
                actor,
                "blocked_network.created",
                "blocked_network",
                object_id=key[0],
                details={"network": network, "reason": reason},
            )
            return wire(_row(connection, int(key[0])))
    except IntegrityError:
        raise Refused("conflict", "This network is blocked already.", field="network") from None


def change(
    database: Database, actor: Actor, network_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change the ``reason``. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        _row(connection, network_id)
        if values:
            connection.execute(update(_n).where(_n.c.id == network_id).values(**values))
            audit.record(
                connection,
                actor,
                "blocked_network.updated",
                "blocked_network",
                object_id=network_id,
                details=audit.changes(values),
            )
        return wire(_row(connection, network_id))


def remove(database: Database, actor: Actor, network_id: int) -> None:
    """Let a network write again. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _row(connection, network_id)
        connection.execute(delete(_n).where(_n.c.id == network_id))
        audit.record(
            connection,
            actor,
            "blocked_network.deleted",
            "blocked_network",
            object_id=network_id,
            details={"network": row.network},
        )


_SELECT: Final = select(_n, _u.c.name, _u.c.avatar_url).outerjoin(_u, _u.c.id == _n.c.created_by)


def _row(connection: Connection, network_id: int) -> Any:
    row = connection.execute(_SELECT.where(_n.c.id == network_id)).one_or_none()
    if row is None:
        raise NotFound
    return row
