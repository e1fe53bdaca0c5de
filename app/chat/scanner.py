"""The virus scanner: a program of the operator's choice that reads a file and says yes or no.

It is started without a shell, gets the file on its standard input, and ends with 0 for clean and 1
for infected, as clamscan(1) and clamdscan(1) do. Anything else counts as a failure, and then
nothing is kept: a scanner that does not work must not let everything through.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from app import log
from app.chat.errors import Busy, Refused

TIMEOUT_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5
_CLEAN, _INFECTED = 0, 1


async def check(
    command: Sequence[str], content: bytes, timeout_seconds: float = TIMEOUT_SECONDS
) -> None:
    """Return when ``command`` finds nothing in ``content``.

    Raises :class:`Refused` for an infected file and :class:`Busy` when the scanner fails or takes
    longer than ``timeout_seconds``.
    """
    logger = log.get("scanner")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # not our own environment, which holds the secrets
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        logger.error("the scanner cannot be started", reason=error.strerror or str(error))
        raise Busy(RETRY_SECONDS) from error
    try:
        async with asyncio.timeout(timeout_seconds):
            await process.communicate(content)
    except TimeoutError:
        logger.error("the scanner took too long", seconds=timeout_seconds)
        raise Busy(RETRY_SECONDS) from None
    finally:
        if process.returncode is None:
            # with whatever it started itself
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == _INFECTED:
        logger.warning("an infected file was refused", size_bytes=len(content))
        raise Refused("attachment_infected", "The virus scanner refuses this file.")
    if process.returncode != _CLEAN:
        logger.error("the scanner failed", exit_status=process.returncode)
        raise Busy(RETRY_SECONDS)
