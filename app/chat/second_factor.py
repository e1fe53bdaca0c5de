"""The second factor: codes of an authenticator app (TOTP, RFC 6238) and recovery codes.

The secret is encrypted with a key derived from DESKLINE_SECRET_KEY (HKDF, RFC 5869), so that a
copy of the database alone makes no codes. Recovery codes are kept as SHA-256: they are random, 80
bits each, and need no slow hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any, Final

import orjson
import pyotp
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, or_, select, update

from app import clock, log
from app.chat.errors import InvalidCode, Refused
from app.db import schema

ISSUER: Final = "Deskline"
STEP_SECONDS: Final = 30
# how many steps the clock of a telephone may be off, either way
STEPS_OFF: Final = 1
CODE_DIGITS: Final = 6
RECOVERY_CODES: Final = 10
_RECOVERY_CHARACTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_RECOVERY_LENGTH: Final = 16
_RECOVERY_GROUP: Final = 4

_users = schema.users
_OFF: Final = {
    "totp_secret": None,
    "totp_enabled_at": None,
    "totp_last_step": None,
    "recovery_codes": None,
}


class SecretBox:
    """Encrypts the secrets of second factors."""

    def __init__(self, secret_key: str) -> None:
        derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"deskline second factor v1")
        self._fernet = Fernet(base64.urlsafe_b64encode(derived.derive(secret_key.encode())))

    def close(self, text: str) -> str:
        """``text`` encrypted and authenticated, in ASCII."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, closed: str) -> str | None:
        """The text again; None when it was closed with another secret key or is damaged."""
        try:
            return self._fernet.decrypt(closed.encode()).decode()
        except InvalidToken:
            return None


def start(connection: Connection, box: SecretBox, user_id: int, email: str) -> tuple[str, str]:
    """Make a secret that is not in force before :func:`confirm`; gives it, and its otpauth URI.

    Raises :class:`Refused` when a second factor is in force: it is not taken away by this.
    """
    secret = pyotp.random_base32()
    made = connection.execute(
        update(_users)
        .where(_users.c.id == user_id, _users.c.totp_enabled_at.is_(None))
        .values(**_OFF | {"totp_secret": box.close(secret)})
    )
    if made.rowcount != 1:
        raise Refused("conflict", "A second factor is in force: turn it off first.")
    return secret, pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=ISSUER)


def confirm(connection: Connection, box: SecretBox, row: Any, code: str) -> list[str]:
    """Put the secret of the account ``row`` in force; gives the recovery codes.

    Raises :class:`InvalidCode` unless ``code`` is one of the secret's.
    """
    use_code(connection, box, row, code)
    codes = new_recovery_codes(connection, row.id)
    connection.execute(
        update(_users).where(_users.c.id == row.id).values(totp_enabled_at=clock.now())
    )
    return codes


def disable(connection: Connection, user_id: int) -> None:
    """Forget the secret and the recovery codes."""
    connection.execute(update(_users).where(_users.c.id == user_id).values(**_OFF))


def new_recovery_codes(connection: Connection, user_id: int) -> list[str]:
    """Replace the recovery codes; gives the new ones, which nobody can read again."""
    codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
    stored = orjson.dumps([_hash(code) for code in codes]).decode()
    connection.execute(update(_users).where(_users.c.id == user_id).values(recovery_codes=stored))
    return codes


def use(connection: Connection, box: SecretBox, row: Any, code: str) -> None:
    """Spend a code of the app or a recovery code of the account ``row``.

    Raises :class:`InvalidCode` when it is wrong or was used. In the transaction of what it allows.
    """
    plain = "".join(code.split())
    if plain.isascii() and plain.isdigit() and len(plain) == CODE_DIGITS:
        use_code(connection, box, row, plain)
    else:
        _use_recovery_code(connection, row.id, plain)


def use_code(connection: Connection, box: SecretBox, row: Any, code: str) -> None:
    """Spend a code of the app; each works once (RFC 6238 §5.2)."""
    secret = box.open(row.totp_secret) if row.totp_secret else None
    if secret is None:
        if row.totp_secret:
            log.get("second_factor").error(
                "the secret cannot be read: was DESKLINE_SECRET_KEY changed?", user_id=row.id
            )
        raise InvalidCode
    step = _step_of(secret, "".join(code.split()))
    if step is None:
        raise InvalidCode
    spent = connection.execute(
        update(_users)
        .where(
            _users.c.id == row.id,
            # the secret that was read, and not one that another tab has begun with since
            _users.c.totp_secret == row.totp_secret,
            or_(_users.c.totp_last_step.is_(None), _users.c.totp_last_step < step),
        )
        .values(totp_last_step=step)
    )
    if spent.rowcount != 1:
        raise InvalidCode


def _step_of(secret: str, code: str) -> int | None:
    """The time step whose code it is; every step is compared, whatever was found before."""
    now = int(clock.now_source().timestamp()) // STEP_SECONDS
    totp = pyotp.TOTP(secret, digits=CODE_DIGITS, interval=STEP_SECONDS)
    found = None
    for step in range(now - STEPS_OFF, now + STEPS_OFF + 1):
        if hmac.compare_digest(totp.at(step * STEP_SECONDS).encode(), code.encode()):
            found = step
    return found


def _use_recovery_code(connection: Connection, user_id: int, code: str) -> None:
    stored = connection.execute(
        select(_users.c.recovery_codes).where(_users.c.id == user_id).with_for_update()
    ).scalar()
    given = _hash(code)
    kept = [one for one in orjson.loads(stored or "[]") if not hmac.compare_digest(one, given)]
    if stored is None or len(kept) == len(orjson.loads(stored)):
        raise InvalidCode
    connection.execute(
        update(_users)
        .where(_users.c.id == user_id)
        .values(recovery_codes=orjson.dumps(kept).decode())
    )


def codes_left(row: Any) -> int:
    """How many recovery codes the account ``row`` has left."""
    return len(orjson.loads(row.recovery_codes)) if row.recovery_codes else 0


def _recovery_code() -> str:
    plain = "".join(secrets.choice(_RECOVERY_CHARACTERS) for _ in range(_RECOVERY_LENGTH))
    groups = range(0, _RECOVERY_LENGTH, _RECOVERY_GROUP)
    return "-".join(plain[begin : begin + _RECOVERY_GROUP] for begin in groups)


def _hash(code: str) -> str:
    return hashlib.sha256(code.replace("-", "").lower().encode()).hexdigest()
