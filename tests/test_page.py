"""The report's page in a real browser: complete, without a request to anywhere and without an error."""

import shutil

import pytest

from snnrobust.reporting.report import write_report
from tests.unit.test_reporting import content, put

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_complete_and_asks_for_nothing(tmp_path, width):
    from playwright.sync_api import sync_playwright

    for weight in (0.0, 0.01):
        for seed in range(3):
            put(tmp_path / "runs" / f"{weight}-{seed}", content(weight, seed))
    page_file = write_report([tmp_path / "runs"], tmp_path / "out", "A title").page
    said, asked = [], []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.locator("h1").inner_text() == "A title"
        assert page.locator("section").first.locator("tbody tr").count() == 2
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.evaluate("document.images.length") == 3
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "scrolls sideways"
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
