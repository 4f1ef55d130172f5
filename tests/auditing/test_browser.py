"""The page in a real browser."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from noisyfit.auditing import decisions
from noisyfit.auditing.page import render, write_report
from tests.auditing.folders import summary_of, table_cards, text_cards
from tests.auditing.test_page import HOSTILE, everywhere

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
wait = pytest.importorskip("selenium.webdriver.support.wait", reason="needs selenium")
CHROMIUM, CHROMEDRIVER = which("chromium"), which("chromedriver")
COMMAND = [sys.executable, "-c", "import sys; from noisyfit.cli import main; sys.exit(main())"]
CLASSES = ["bus", "saab", "van", "bicycle"]
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu":
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


def opened(browser: Any, folder: Path, *page: Any) -> Any:
    file = folder / "page.html"
    file.write_text(render(*page), encoding="utf-8")
    browser.get_log("browser")
    visit(browser, file.as_uri())
    return browser


def visit(browser: Any, address: str | None = None) -> None:
    """Open a page, or the same again, and wait for all of it: a slow machine shows half of one."""
    browser.get(address or browser.current_url)
    ready = "return document.readyState === 'complete'"
    wait.WebDriverWait(browser, 20).until(lambda page: page.execute_script(ready))


def visible(browser: Any) -> list[str]:
    """Return the rows that are shown, in their order."""
    script = "return [...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.row)"
    rows: list[str] = browser.execute_script(script)
    return rows


def choose(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const e = document.querySelector(`[name=${arguments[0]}]`); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}))",
        name,
        value,
    )


def test_hostile_texts__are_seen_and_do_nothing(browser: Any, tmp_path: Path) -> None:
    for text in HOSTILE:
        page = opened(browser, tmp_path, *everywhere(text))
        assert page.execute_script("return document.scripts.length") == 1
        assert (
            page.execute_script("return document.querySelectorAll('[onerror], dd b, h1 b').length")
            == 0
        )
        shown = page.execute_script("return document.querySelector('h1').textContent")
        assert shown == text.replace("\r\n", "\n")  # as HTML reads it
        assert page.get_log("browser") == []  # nothing ran, nothing was refused


def test_report__asks_the_network_for_nothing(browser: Any, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, summary_of(CLASSES), table_cards(20))
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    refused = (
        "fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused').then(arguments[0])"
    )
    assert page.execute_async_script(refused) == "refused"
    assert "Content Security Policy" in page.get_log("browser")[0]["message"]


def test_filters_and_orders(browser: Any, tmp_path: Path) -> None:
    cards = table_cards(20, CLASSES)
    page = opened(browser, tmp_path, summary_of(CLASSES), cards)
    assert visible(page) == [card.id for card in cards]
    choose(page, "order", "row")
    assert visible(page) == sorted((card.id for card in cards), key=int)
    choose(page, "order", "-rank")
    choose(page, "pair", "1")
    assert visible(page) == [card.id for card in cards if card.given == "saab"][::-1]
    assert (
        page.execute_script("return document.getElementById('count').textContent") == "5 of 20 rows"
    )
    choose(page, "pair", "")
    choose(page, "search", " 1797 KG ")
    assert visible(page) == [cards[3].id]
    choose(page, "search", "nowhere")
    assert page.execute_script("return document.getElementById('none').hidden") is False


def test_matrix__a_click__shows_its_rows(browser: Any, tmp_path: Path) -> None:
    cards = table_cards(20, CLASSES)
    page = opened(browser, tmp_path, summary_of(CLASSES), cards)
    page.execute_script("document.querySelector('.matrix td[data-pair=\"2\"]').click()")
    assert visible(page) == [card.id for card in cards if card.given == "van"]


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_page__at_any_width__does_not_scroll_sideways(
    browser: Any, tmp_path: Path, width: int
) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    names = ["a" * 60, *CLASSES]
    cards = [*table_cards(4, names), *text_cards(2)]
    page = opened(browser, tmp_path, summary_of(names, "a_very_long_name" * 6), cards)
    found = page.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert found <= width


def test_page__dark__is_dark(browser: Any, tmp_path: Path) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    found = []
    for scheme in "light", "dark":
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        color = opened(browser, tmp_path, summary_of(CLASSES), []).execute_script(paper)
        found.append(sum(map(int, re.findall(r"\d+", color))))
    assert found[0] > 700
    assert found[1] < 100


# Review


class Server:
    """``noisyfit review`` in a process that can be killed."""

    def __init__(self, folder: Path) -> None:
        command = [*COMMAND, "review", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", self.address)

    def stop(self, by: int) -> int:
        self.process.send_signal(by)
        return self.process.wait(20)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    write_report(tmp_path, summary_of(CLASSES), table_cards(60, CLASSES))
    return tmp_path


@pytest.fixture
def server(audit: Path) -> Iterator[Server]:
    started = Server(audit)
    yield started
    started.process.kill()
    started.process.wait()


def press(browser: Any, keys: str) -> None:
    """Press keys one after the other, and wait until the server has answered all."""
    webdriver.ActionChains(browser).send_keys(*keys).perform()
    browser.execute_async_script("const [done] = arguments; waiting.then(() => done())")


def made(browser: Any) -> dict[str, str]:
    """Return what the page says was decided, by row."""
    script = (
        "return Object.fromEntries([...document.querySelectorAll('.card[data-decision]')]"
        ".map(c => [c.dataset.row, c.querySelector('.decision').textContent]))"
    )
    found: dict[str, str] = browser.execute_script(script)
    return found


def stored(audit: Path) -> dict[str, str]:
    found = decisions.standing(decisions.read(audit / decisions.NAME))
    return {row: one.label for row, one in found.items()}


def test_review__fifty_decisions_by_keyboard__outlive_a_kill(
    browser: Any, audit: Path, server: Server
) -> None:
    cards = table_cards(60, CLASSES)
    visit(browser, server.address)
    press(browser, "ka" * 25)
    expected = {
        card.id: f"Becomes {card.suggested}" if i % 2 else f"Stays {card.given}"
        for i, card in enumerate(cards[:50])
    }
    assert made(browser) == expected
    press(browser, "uu")
    for card in cards[48:50]:
        del expected[card.id]
    assert made(browser) == expected
    visit(browser)
    assert made(browser) == expected
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    press(browser, "k")
    assert made(browser) == expected  # not said, as it was not saved
    assert "Not saved" in browser.execute_script(
        "return document.getElementById('problem').innerText"
    )
    again = Server(audit)
    try:
        visit(browser, again.address)
        assert made(browser) == expected
        assert {row: text.split()[1] for row, text in expected.items()} == stored(audit)
        press(browser, "s")
        assert made(browser) == expected | {cards[48].id: "Skipped"}
    finally:
        assert again.stop(signal.SIGINT) == 0


def test_review__other_class__is_chosen_by_keyboard(
    browser: Any, audit: Path, server: Server
) -> None:
    from selenium.webdriver.common.keys import Keys

    visit(browser, server.address)
    webdriver.ActionChains(browser).send_keys("o").pause(0.2).send_keys("bic", Keys.ENTER).perform()
    press(browser, "k")
    assert list(stored(audit).values()) == ["bicycle", "saab"]
    webdriver.ActionChains(browser).send_keys("o").pause(0.2).send_keys(Keys.ESCAPE).perform()
    press(browser, "a")
    assert list(stored(audit).values()) == ["bicycle", "saab", "bicycle"]


def test_review__arrows_buttons_and_filters(browser: Any, audit: Path, server: Server) -> None:
    from selenium.webdriver.common.keys import Keys

    cards = table_cards(60, CLASSES)
    visit(browser, server.address)
    press(browser, [Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_UP, "k"])  # type: ignore[arg-type]
    assert [*made(browser)] == [cards[1].id]
    browser.execute_script(
        "document.querySelectorAll('.card')[5].querySelector('[data-do=accept]').click()"
    )
    press(browser, "")
    assert [*made(browser)] == [cards[1].id, cards[5].id]
    choose(browser, "show", "done")
    assert visible(browser) == [cards[1].id, cards[5].id]
    choose(browser, "show", "open")
    assert len(visible(browser)) == 58
    browser.find_element("name", "search").send_keys("kaos")  # letters are letters there
    assert len(made(browser)) == 2


def test_review__two_tabs__keep_each_others_decisions(
    browser: Any, audit: Path, server: Server
) -> None:
    cards = table_cards(60, CLASSES)
    visit(browser, server.address)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    visit(browser, server.address)
    press(browser, "aa")
    browser.close()
    browser.switch_to.window(first)
    press(browser, "k")
    visit(browser)
    assert made(browser) == {
        cards[0].id: f"Stays {cards[0].given}",
        cards[1].id: f"Becomes {cards[1].suggested}",
    }
    assert len(decisions.read(audit / decisions.NAME)) == 3


def test_review__listens_on_this_machine_only(server: Server) -> None:
    port = f"{int(server.address.split(':')[2].split('/')[0]):04X}"
    tables = [Path(f"/proc/{os.getpid()}/net/{name}") for name in ("tcp", "tcp6")]
    lines = [
        line.split() for one in tables if one.exists() for line in one.read_text().splitlines()
    ]
    assert [line[1] for line in lines if line[1].endswith(f":{port}") and line[3] == "0A"] == [
        f"0100007F:{port}"
    ]
