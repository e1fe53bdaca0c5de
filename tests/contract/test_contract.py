"""The OpenAPI document against the running server: schemathesis, with every check it has.

It makes valid and invalid requests from /openapi.json, chains calls by the ids that answers give,
and fails on a 5xx, on an answer that is not described, on one that its schema does not allow, and
on a call that ignores its authentication. DESKLINE_CONTRACT_SECONDS sets how long each role runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Agent, Visitor
from tests.conftest import ROOT, Deskline, embedded_deskline

SECONDS = int(os.environ.get("DESKLINE_CONTRACT_SECONDS", "25"))
# what would end the session that the run itself uses; the others are called by each role
NOT_CALLED = {
    "visitor": (),
    "agent": ("logout", "end_session"),
    "admin": ("logout", "end_session", "end_user_sessions", "change_user", "reset_user_totp"),
}
# A request may fit its schema and still name a cursor that nobody gave out, a colleague who is gone
# or a zone that does not exist: that is a 422 as well. A link that was in no mail is a 410, a file
# of bytes that are nothing a 415.
# Guessed passwords, forgotten ones and transcripts by mail have limits of their own: 429.
CHECKS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 415, 422, 429]
"""


def authentication(role: str, deskline: Deskline) -> str:
    """The [auth.openapi] part of schemathesis' configuration for ROLE."""
    if role == "visitor":
        visitor = Visitor(deskline)
        visitor.conversation()
        token = visitor.session["visitor_token"]
        visitor.http.close()
        return f'[auth.openapi.visitor]\nbearer = "{token}"\n'
    # of its own: guessed passwords block the account that they are guessed for
    admin = Agent(deskline, deskline.email)
    email = f"contract-{uuid.uuid4()}@example.com"
    account = {"email": email, "name": "Contract", "role": role, "password": deskline.password}
    assert admin.post("/users", account).status_code == 201
    admin.http.close()
    member = Agent(deskline, email)
    cookie, csrf = member.http.cookies["deskline_session"], member.csrf["X-CSRF-Token"]
    member.http.close()
    return (
        f'[auth.openapi.session]\napi_key = "{cookie}"\n[auth.openapi.csrf]\napi_key = "{csrf}"\n'
    )


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("role", NOT_CALLED)
def test_the_server_does_what_its_document_says(role: str, tmp_path: Path) -> None:
    # a server of its own: the calls change everything that they may, and are many
    with embedded_deskline(tmp_path, RATE_LIMITS="observe") as deskline:
        run_as(role, deskline, tmp_path)
        assert httpx.get(f"{deskline.url}/readyz", timeout=20).status_code == 200


def run_as(role: str, deskline: Deskline, tmp_path: Path) -> None:
    """One run of schemathesis; fails with what it found."""
    configuration = tmp_path / "schemathesis.toml"
    configuration.touch(mode=0o600)
    configuration.write_text(CHECKS + authentication(role, deskline), encoding="utf-8")
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", configuration),
            *("run", f"{deskline.url}/openapi.json", "--checks", "all"),
            *("--max-time", str(SECONDS), "--request-timeout", "30", "--warnings", "off"),
            *("--max-response-time", "28"),  # a call may wait 25 s for messages
            *(word for name in NOT_CALLED[role] for word in ("--exclude-operation-id", name)),
        ],
        cwd=tmp_path,  # its cache stays out of the project
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + 240,
        check=False,
    )
    (ROOT / "test-results").mkdir(exist_ok=True)
    (ROOT / "test-results" / f"contract-{role}.log").write_text(done.stdout, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-15_000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None and int(generated[1]) >= 100, done.stdout[-2000:]
