"""The helpers for tests of pages tell a good page from a bad one."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.helpers import browser

PAGE = '<!DOCTYPE html><meta name="viewport" content="width=device-width"><title>A</title>'


def write(path: Path, body: str) -> Path:
    path.write_text(PAGE + body, encoding='utf-8')
    return path


def test_sizes_are_those_of_the_page_also_where_no_window_is_so_narrow(
    chromium: WebDriver, tmp_path: Path
) -> None:
    browser.open_page(chromium, write(tmp_path / 'a.html', ''), 360, 800)
    size = 'return [window.innerWidth, window.innerHeight]'
    assert chromium.execute_script(size) == [360, 800]
    browser.resize(chromium, 1440, 900)
    assert chromium.execute_script(size) == [1440, 900]


@pytest.mark.parametrize(
    'body', ['<script>missing()</script>', '<script>console.error("bad")</script>', '<img src=no>']
)
def test_errors_of_a_page_are_its_own(chromium: WebDriver, tmp_path: Path, body: str) -> None:
    browser.open_page(chromium, write(tmp_path / 'bad.html', body))
    assert len(browser.console_errors(chromium)) == 1
    browser.open_page(chromium, tmp_path / 'bad.html')
    browser.open_page(chromium, write(tmp_path / 'good.html', '<script>console.log(1)</script>'))
    assert browser.console_errors(chromium) == []


def test_screenshot_is_of_the_whole_page(chromium: WebDriver, tmp_path: Path) -> None:
    tall = '<body style="margin: 0"><div style="height: 3000px; background: red"></div>'
    browser.open_page(chromium, write(tmp_path / 'tall.html', tall), 400, 300)
    browser.save_screenshot(chromium, tmp_path / 'tall.png')
    picture = matplotlib.image.imread(tmp_path / 'tall.png')
    assert picture.shape[:2] == (3000, 400)
    assert picture[-1, -1, :3].tolist() == [1, 0, 0]
    browser.save_screenshot(chromium, tmp_path / 'window.png', whole_page=False)
    assert matplotlib.image.imread(tmp_path / 'window.png').shape[:2] == (300, 400)


def test_without_chromium_a_test_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '')
    with pytest.raises(pytest.skip.Exception, match='needs chromedriver, which is not installed'):
        browser._installed('chromedriver')
