"""The frames of a client, right ones and wrong ones, built apart from the code under test."""

from __future__ import annotations

MASK = b"\x37\xfa\x21\x3d"


def masked(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    width: int | None = None,
) -> bytes:
    """One frame. ``width``: bytes of the extended length (0, 2 or 8), else the fewest possible;
    ``mask``: four bytes, or None for a frame that is not masked."""
    size = len(payload)
    if width is None:
        width = 0 if size <= 125 else 2 if size <= 0xFFFF else 8
    short = {0: size, 2: 126, 8: 127}[width]
    head = bytes((fin << 7 | rsv << 4 | opcode, (mask is not None) << 7 | short))
    head += size.to_bytes(width, "big") if width else b""
    if mask is None:
        return head + payload
    return head + mask + xor(payload, mask)


def xor(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 §5.3, as one large number."""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return number.to_bytes(len(payload), "big")
