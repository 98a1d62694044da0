"""A headless Chromium for tests of pages: window size, console errors, screenshots."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

# Longest wait for a page or a script, in seconds.
_TIMEOUT = 30

_FLAGS = (
    '--headless',
    # Chromium refuses to run its sandbox as root, the user of containers.
    '--no-sandbox',
    # The /dev/shm of a container may be as small as 64 MB.
    '--disable-dev-shm-usage',
    '--disable-gpu',
    '--hide-scrollbars',
    # Only the page itself makes requests.
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)


@pytest.fixture(scope='session')
def chromium() -> Iterator[WebDriver]:
    """One headless Chromium for all tests, Debian's or another that is installed."""
    browser, driver = _installed('chromium', 'chromium-browser'), _installed('chromedriver')
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = Options()
        options.binary_location = browser
        for flag in (*_FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
        # Without a path, Selenium would download a driver.
        running = webdriver.Chrome(options, Service(driver))
        try:
            running.set_page_load_timeout(_TIMEOUT)
            running.set_script_timeout(_TIMEOUT)
            yield running
        finally:
            running.quit()


def _installed(*names: str) -> str:
    """Path of the first program that is installed; without any, the test is skipped."""
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip(f'needs {names[0]}, which is not installed')


def open_page(browser: WebDriver, page: Path | str, width: int = 1280, height: int = 800) -> None:
    """Opens a file or URL in a window of that many CSS pixels, and waits until it is loaded.

    The console's messages about earlier pages are discarded.
    """
    resize(browser, width, height)
    browser.get_log('browser')
    browser.get(page.resolve().as_uri() if isinstance(page, Path) else page)


def resize(browser: WebDriver, width: int, height: int) -> None:
    """Sets the size of the page's window in CSS pixels; it may be narrower than a real one."""
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': False},
    )


def console_errors(browser: WebDriver) -> list[str]:
    """The console's errors since the page was opened or this was last called.

    They include missing files and exceptions in scripts.
    """
    return [entry['message'] for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']


def save_screenshot(browser: WebDriver, path: Path, whole_page: bool = True) -> None:
    """Writes a PNG of the whole page, or of the window only."""
    picture = browser.execute_cdp_cmd(
        'Page.captureScreenshot', {'captureBeyondViewport': whole_page}
    )
    path.write_bytes(base64.b64decode(picture['data']))
