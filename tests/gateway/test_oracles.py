"""Our frame reader beside four others, and beside the letter of RFC 6455, on generated streams.

Three independent things must agree on each stream: our reader; :func:`verdict`, which is the RFC's
rules written down without any thought of speed; and `websockets`, `wsproto`, `aiohttp` and Node's
`ws`. Where one of those does not do what the RFC says, :data:`DIFFERENCES` names it with the
section: the streams are compared up to such a frame, and the difference itself is shown by
examples, so that a library that changes its mind is noticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.gateway import frame_oracles
from tests.gateway.client_frames import MASK, masked, xor
from tests.gateway.conftest import node_modules
from tests.gateway.frame_oracles import NodeWs, Oracle, Verdict

LIMIT = 4096
KNOWN_OPCODES = {0, 1, 2, 8, 9, 10}
CODES = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


# --- the RFC, read slowly ---------------------------------------------------------------------


@dataclass
class Seen:
    """One frame of a stream, and in which message it stands."""

    at: int
    end: int | None  # None while its payload, or the rest of its head, has not come
    first: int
    second: int
    size: int | None  # None while the extended length has not come
    fewest_bytes: bool
    payload: bytes  # as much as has come
    held_opcode: int | None  # of the message in fragments that it may continue
    held: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def fin(self) -> bool:
        return bool(self.first & 0x80)

    @property
    def is_control(self) -> bool:
        return self.opcode >= 8

    def faults(self) -> set[int]:
        """The close codes with which this frame may be refused; empty when it must not be."""
        codes = set()
        if (
            self.first & 0x70
            or self.opcode not in KNOWN_OPCODES
            or not self.second & 0x80
            or not self.fewest_bytes
            or (self.is_control and (not self.fin or self.second & 0x7F > 125))
            or (not self.is_control and (self.opcode == 0) != (self.held_opcode is not None))
        ):
            codes.add(1002)
        if (0 if self.is_control else len(self.held)) + (self.size or 0) > LIMIT:
            codes.add(1009)  # of a control frame: beside 1002
        if self.opcode == 8 and self.end is not None and self.payload:
            codes |= self._faults_of_close()
        message = self.held_opcode or self.opcode
        if message == 1 and not self.is_control and not self._may_be_utf8():
            codes.add(1007)
        return codes

    def _faults_of_close(self) -> set[int]:
        codes = set()
        if len(self.payload) == 1 or int.from_bytes(self.payload[:2], "big") not in CODES:
            codes.add(1002)
        try:
            self.payload[2:].decode()
        except UnicodeDecodeError:
            codes.add(1007)
        return codes

    def _may_be_utf8(self) -> bool:
        try:
            (self.held + self.payload).decode()
        except UnicodeDecodeError as error:
            is_cut = error.reason == "unexpected end of data"
            return is_cut and not (self.fin and self.end is not None)
        return True


def walk(data: bytes) -> Iterator[Seen]:
    """The frames of a stream, whether right or wrong, up to the first that is not whole."""
    at = 0
    held_opcode: int | None = None
    held = b""
    while len(data) - at >= 2:
        first, second = data[at], data[at + 1]
        width = {126: 2, 127: 8}.get(second & 0x7F, 0)
        start = at + 2 + width
        size: int | None = second & 0x7F
        if width:
            size = int.from_bytes(data[at + 2 : start], "big") if start <= len(data) else None
        fewest = size is None or width == 0 or (size > (125, 0xFFFF)[width == 8] and size < 2**63)
        payload_at = start + (4 if second & 0x80 else 0)
        end = None
        payload = b""
        if size is not None and payload_at <= len(data):
            payload = data[payload_at : payload_at + size]
            if second & 0x80:
                payload = xor(payload, data[start:payload_at])
            end = payload_at + size if payload_at + size <= len(data) else None
        seen = Seen(at, end, first, second, size, fewest, payload, held_opcode, held)
        yield seen
        if end is None:
            return
        at = end
        if not seen.is_control:
            held_opcode = held_opcode or seen.opcode
            held += payload
            if seen.fin:
                held_opcode, held = None, b""


def verdict(data: bytes) -> tuple[Verdict, set[int], int]:
    """What must come of a stream; with which codes it may be refused; where that is known."""
    items: list[tuple[int, bytes]] = []
    for seen in walk(data):
        codes = seen.faults()
        if codes:
            return (items, min(codes)), codes, seen.end or len(data)
        if seen.end is None:
            break
        if seen.is_control:
            items.append((seen.opcode, seen.payload))
        elif seen.fin:
            items.append((seen.held_opcode or seen.opcode, seen.held + seen.payload))
        if seen.opcode == 8:
            return (items, None), set(), seen.end
    return (items, None), set(), len(data)


def completed(data: bytes) -> bytes:
    """``data`` with its last frame brought to an end, and then its last message."""
    last = list(walk(data))[-1]
    if last.end is None:
        rest = data[last.at :]
        if last.size is None:
            rest = rest[:2] + {126: b"\x00\x7e", 127: b"\0\0\0\0\0\1\0\0"}[last.second & 0x7F]
        head = 2 + {126: 2, 127: 8}.get(last.second & 0x7F, 0) + (4 if last.second & 0x80 else 0)
        rest = rest.ljust(head, b"\0")
        size = last.size if last.size is not None else int.from_bytes(rest[2:10], "big")
        data = data[: last.at] + rest.ljust(min(head + size, 2 * LIMIT + 70_000), b"\0")
    in_a_message = not last.is_control and not last.fin
    if in_a_message or (last.is_control and last.held_opcode is not None):
        data += masked(0)
    return data


# --- where others differ ----------------------------------------------------------------------

# A frame with one of these is where the comparison with that library ends.
Difference = Callable[[Seen], bool]


def in_more_bytes_than_needed(seen: Seen) -> bool:
    return not seen.fewest_bytes


def close_in_a_message(seen: Seen) -> bool:
    return seen.opcode == 8 and seen.held_opcode is not None


def close_code_1014(seen: Seen) -> bool:
    return seen.opcode == 8 and seen.payload[:2] == (1014).to_bytes(2, "big")


def close_code_1006_or_above_4999(seen: Seen) -> bool:
    code = int.from_bytes(seen.payload[:2], "big")
    return seen.opcode == 8 and (code == 1006 or code >= 5000)


def over_the_limit(seen: Seen) -> bool:
    return not seen.is_control and len(seen.held) + (seen.size or 0) > LIMIT


def not_masked(seen: Seen) -> bool:
    return not seen.second & 0x80


def new_message_after_empty_fragments(seen: Seen) -> bool:
    return seen.opcode in (1, 2) and seen.held_opcode is not None and not seen.held


@dataclass
class Named:
    """A difference: who, what, why ours is as it is, and a stream that shows it."""

    library: str
    applies: Difference
    section: str
    example: bytes
    our_code: int | None
    their_code: int | None


DIFFERENCES = [
    *(
        Named(
            library,
            in_more_bytes_than_needed,
            "§5.2: the minimal number of bytes MUST be used; the most significant bit MUST be 0",
            masked(1, b"abc", width=2),
            1002,
            None,
        )
        for library in ("websockets", "aiohttp", "ws")
    ),
    Named(
        "websockets",
        close_in_a_message,
        "§5.4: control frames MAY be injected in the middle of a fragmented message",
        masked(1, b"a", fin=False) + masked(8, b"\x03\xe8"),
        None,
        1002,
    ),
    Named(
        "wsproto",
        close_code_1014,
        "§7.4.2: 1000 to 2999 are for extensions of the protocol; IANA has registered 1014",
        masked(8, (1014).to_bytes(2, "big")),
        None,
        1002,
    ),
    Named(
        "wsproto",
        over_the_limit,
        "§10.4: implementations SHOULD limit the size of frames and messages",
        masked(2, bytes(LIMIT + 1)),
        1009,
        None,
    ),
    *(
        Named(
            "aiohttp",
            close_code_1006_or_above_4999,
            "§7.4.1: 1006 MUST NOT be in a close frame; §7.4.2 ends at 4999",
            masked(8, code.to_bytes(2, "big")),
            1002,
            None,
        )
        for code in (1006, 5000)
    ),
    Named(
        "aiohttp",
        not_masked,
        "§5.1: the server MUST close the connection upon receiving a frame that is not masked",
        masked(1, b"abc", mask=None),
        1002,
        None,
    ),
    Named(
        "aiohttp",
        new_message_after_empty_fragments,
        "§5.4: the fragments of one message MUST NOT be interleaved with another's",
        masked(1, b"", fin=False) + masked(1, b"abc"),
        1002,
        None,
    ),
]


@pytest.fixture(scope="module")
def oracles() -> Iterator[dict[str, Oracle]]:
    with NodeWs(node_modules("ws")) as node_ws:
        yield {
            "websockets": frame_oracles.websockets,
            "wsproto": frame_oracles.wsproto,
            "aiohttp": frame_oracles.aiohttp,
            "ws": node_ws,
        }


@pytest.mark.parametrize(
    "difference",
    DIFFERENCES,
    ids=lambda named: f"{named.library}-{named.applies.__name__}-{named.example[:8].hex()}",
)
def test_a_named_difference_is_as_named(difference: Named, oracles: dict[str, Oracle]) -> None:
    _, our_code = frame_oracles.ours([difference.example], LIMIT)
    _, their_code = oracles[difference.library]([difference.example], LIMIT)
    assert our_code == difference.our_code, difference.section
    assert their_code == difference.their_code, "the library does as we do now: no difference"
    assert any(difference.applies(seen) for seen in walk(difference.example))


# --- streams ----------------------------------------------------------------------------------

masks = st.binary(min_size=4, max_size=4)
texts = st.text(max_size=60).map(str.encode)
payloads = st.one_of(
    texts,
    st.binary(max_size=140),
    st.sampled_from([b"", b"\xff", "€".encode()[:2], "€".encode()[2:], bytes(126), bytes(LIMIT)]),
)
close_payloads = st.one_of(
    st.just(b""),
    st.binary(max_size=3),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason[:123],
        st.one_of(st.integers(995, 1020), st.integers(2990, 5010), st.integers(0, 0xFFFF)),
        st.one_of(texts, st.binary(max_size=4)),
    ),
)
right_control = st.one_of(
    st.builds(masked, st.sampled_from([9, 10]), st.binary(max_size=125), mask=masks),
    st.builds(
        lambda code, mask: masked(8, code.to_bytes(2, "big"), mask=mask),
        st.sampled_from(sorted(CODES)),
        masks,
    ),
)


@st.composite
def right_message(draw: st.DrawFn) -> bytes:
    """A message in one or more frames, cut anywhere, perhaps with pings between them."""
    is_text = draw(st.booleans())
    payload = draw(texts if is_text else st.binary(max_size=300))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    stream = b""
    for index, part in enumerate(parts):
        opcode = (1 if is_text else 2) if index == 0 else 0
        stream += masked(opcode, part, fin=index == len(parts) - 1, mask=draw(masks))
        if draw(st.integers(0, 3)) == 0:
            stream += masked(9, draw(st.binary(max_size=10)), mask=draw(masks))
    return stream


any_frame = st.one_of(
    st.builds(
        masked,
        st.sampled_from([0, 0, 1, 1, 2, 9, 10]),
        payloads,
        fin=st.booleans(),
        mask=masks,
    ),
    st.builds(masked, st.just(8), close_payloads, mask=masks),
    st.builds(
        masked,
        st.integers(0, 15),
        st.binary(max_size=20),
        fin=st.booleans(),
        rsv=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 7]),
        mask=st.one_of(masks, st.none()),
        width=st.sampled_from([None, None, 2, 8]),
    ),
    st.builds(
        lambda head, size: head + size.to_bytes(8, "big") + MASK,
        st.sampled_from([b"\x82\xff", b"\x01\xff", b"\x80\xff", b"\x89\xff"]),
        st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([LIMIT + 1, 65536, 2**63])),
    ),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A right stream in which some bytes are others."""
    stream = bytearray(draw(st.lists(right_message(), min_size=1, max_size=3).map(b"".join)))
    for _ in range(draw(st.integers(1, 3))):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream)


streams = st.one_of(
    st.lists(st.one_of(right_message(), right_control), max_size=5).map(b"".join),
    st.tuples(st.lists(right_message(), max_size=2).map(b"".join), any_frame).map(b"".join),
    st.lists(any_frame, max_size=8).map(b"".join),
    mutated(),
    st.binary(max_size=60),
)
cuts = st.one_of(st.just([]), st.lists(st.integers(1, 40), max_size=30))


def pieces(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """``data`` in pieces of these sizes and a rest."""
    found = []
    for size in sizes:
        found.append(data[:size])
        data = data[size:]
    return [piece for piece in (*found, data) if piece]


COMPARED: Counter[str] = Counter()


@settings(max_examples=600, deadline=None)
@given(streams, cuts)
def test_our_reader_does_what_the_rfc_says(data: bytes, sizes: list[int]) -> None:
    (items, code), codes, _ = verdict(data)
    our_items, our_code = frame_oracles.ours(pieces(data, sizes), LIMIT)
    assert our_items == items
    assert our_code in codes if code is not None else our_code is None
    event(f"code {our_code}")


@pytest.mark.parametrize("library", ["websockets", "wsproto", "aiohttp", "ws"])
def test_another_library_does_as_our_reader(library: str, oracles: dict[str, Oracle]) -> None:
    oracle = oracles[library]
    differences = [named.applies for named in DIFFERENCES if named.library == library]

    @settings(max_examples=600, deadline=None)
    @given(streams, cuts)
    def compare(data: bytes, sizes: list[int]) -> None:
        _, codes, known_at = verdict(data)
        data = data[:known_at]
        for seen in walk(data):
            if any(applies(seen) for applies in differences):
                data = data[: seen.at]
                codes = set()
                COMPARED[f"{library}: to a named difference"] += 1
                break
        if codes:
            # We refuse by the first byte that is wrong; others when the frame or message is whole.
            data = completed(data)
            _, codes, _ = verdict(data)
        our_items, our_code = frame_oracles.ours(pieces(data, sizes), LIMIT)
        their_items, their_code = oracle(pieces(data, sizes), LIMIT)
        assert their_items == our_items
        assert (their_code is None) == (our_code is None)
        # Of a frame that is wrong in two ways, either code is right.
        assert their_code == our_code or {their_code, our_code} <= codes
        COMPARED[f"{library}: {'refused' if our_code else 'accepted'}"] += 1

    compare()
    print({key: count for key, count in COMPARED.items() if key.startswith(library + ":")})


def test_both_kinds_of_streams_were_compared() -> None:
    if not COMPARED:
        pytest.skip("the comparisons were not selected in this run")
    for library in {key.split(":")[0] for key in COMPARED}:
        assert COMPARED[f"{library}: refused"] > 100
        assert COMPARED[f"{library}: accepted"] > 100
