"""A real Chromium, one visitor and one agent at once.

The pages come from the embedded mode, or from the deployment that DESKLINE_TEST_URL names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FrameLocator,
    Locator,
    Page,
    expect,
    sync_playwright,
)

from tests.conftest import Deskline

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "test-results" / "screenshots"
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What a page may complain about although nothing is wrong: a request that the test itself broke.
EXPECTED_ERRORS = re.compile(r"net::ERR_INTERNET_DISCONNECTED|ERR_NETWORK_CHANGED|WebSocket")

expect.set_options(timeout=15_000)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by Playwright."""
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: apt-get install chromium"
    arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield launched
        launched.close()


MakeContext = Callable[..., BrowserContext]


@pytest.fixture
def context(
    browser: Browser, deskline: Deskline, request: pytest.FixtureRequest
) -> Iterator[MakeContext]:
    """Make browser contexts (separate people); at the end no page may have logged an error."""
    made: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: object) -> BrowserContext:
        settings: dict[str, object] = {
            "base_url": deskline.url,
            "viewport": {"width": 1440, "height": 900},
            "locale": "en-US",
        }
        new = browser.new_context(**(settings | options))  # type: ignore[arg-type]  # by name
        new.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        new.on("weberror", lambda error: complaints.append(str(error.error)))
        made.append(new)
        return new

    yield make
    for number, one in enumerate(made):
        for tab, page in enumerate(one.pages):
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{request.node.name}-{number}-{tab}.png")
        one.close()
    allowed = request.node.get_closest_marker("allowed_console")
    patterns = list(allowed.args) if allowed else []
    unexpected = [
        text
        for text in complaints
        if not EXPECTED_ERRORS.search(text) and not any(re.search(one, text) for one in patterns)
    ]
    assert not unexpected, f"the browser's console: {unexpected}"


class Visitor:
    """A visitor on a page that carries the widget."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @property
    def frame(self) -> FrameLocator:
        return self.page.frame_locator('iframe[data-deskline="frame"]')

    def element(self, test_id: str) -> Locator:
        return self.frame.get_by_test_id(test_id)

    def open(self) -> None:
        self.page.goto("/")
        self.page.locator('button[data-deskline="launcher"]').click()
        expect(self.element("widget-composer")).to_be_visible()

    def write(self, text: str) -> None:
        self.element("widget-composer").fill(text)
        self.element("widget-send").click()

    def bubble(self, text: str) -> Locator:
        return self.element("message").filter(has_text=text)


class Agent:
    """A staff member in the dashboard."""

    def __init__(self, page: Page, deskline: Deskline) -> None:
        self.page = page
        self.deskline = deskline

    def element(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def log_in(self) -> None:
        self.page.goto("/login")
        self.element("login-email").fill(self.deskline.email)
        self.element("login-password").fill(self.deskline.password)
        self.element("login-submit").click()
        expect(self.page).to_have_url(re.compile(r"/dashboard"))

    def row(self, text: str) -> Locator:
        return self.element("conversation-row").filter(has_text=text)

    def bubble(self, text: str) -> Locator:
        return self.element("message").filter(has_text=text)

    def answer(self, text: str) -> None:
        self.element("composer").fill(text)
        self.element("send").click()


@pytest.fixture
def visitor(context: MakeContext) -> Visitor:
    """A visitor with an empty browser."""
    return Visitor(context().new_page())


@pytest.fixture
def agent(context: MakeContext, deskline: Deskline) -> Agent:
    """The demo agent, logged in."""
    one = Agent(context().new_page(), deskline)
    one.log_in()
    return one
