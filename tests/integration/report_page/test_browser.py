"""How the page of a run's report looks in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.report_page.chromium import EXECUTABLE, tab
from tests.unit.report_page.runs import SIZES, html

OFF_SCREEN = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect(), scrolled = e.parentElement.closest('.wide, pre, svg');
  return !scrolled && !e.closest('.skip, .hidden') && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(e => e.outerHTML.slice(0, 80)).slice(0, 5)"""


@pytest.mark.integration
@pytest.mark.skipif(EXECUTABLE is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_in_a_browser_nothing_is_off_screen_and_the_console_is_empty(tmp_path: Path) -> None:
    faults: dict[tuple[str, int], Any] = {}
    with tab() as browser:
        for kind in SIZES:
            file = tmp_path / f"{kind}.html"
            file.write_text(html(kind))
            for width, dark in ((390, False), (1440, True)):
                browser.open(file, width, dark=dark)
                browser.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
                wide = browser.evaluate("document.documentElement.scrollWidth > innerWidth")
                off = browser.evaluate(OFF_SCREEN)
                if wide or off or browser.messages:
                    faults[kind, width] = (wide, off, browser.messages)
    assert faults == {}
