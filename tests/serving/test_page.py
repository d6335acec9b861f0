"""The page in a real browser: a text as it streams, an image, a row and a sound; nobody else is asked."""

from __future__ import annotations

import base64
import json
import threading
import time

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")
pytest.importorskip("PIL", reason="needs pillow")
pytest.importorskip("soundfile", reason="needs soundfile")

from report.browser import Browser
from serving.hosting import echo, hosted, listener, sizer, summer

from jaxmodels.data.formats.audio import wav
from jaxmodels.runs.png import encode_png

HOLD = threading.Event()
MARKUP = "<img src=x onerror=alert(1)><b>b</b>"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def server():
    models = (echo(hold=HOLD), echo("plain", template=""), summer(), sizer(), listener())
    with hosted(*models) as server:
        yield server
        HOLD.set()


@pytest.fixture
def page(browser, server):
    """Opens the page with a model chosen."""

    def open_with(name, width=900):
        browser.events.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser("Emulation.setDeviceMetricsOverride", **size)
        browser("Page.navigate", url="about:blank")
        browser("Page.navigate", url=f"{server.url}/")
        until(browser, "document.documentElement?.dataset.model")
        fill(browser, "#model", name)
        browser.js("document.querySelector('#model').onchange()")
        return browser

    yield open_with
    assert not [said for said in browser.troubles() if "(Bad Request)" not in said]
    asked = [said["request"]["url"] for what, said in browser.events if what == "Network.requestWillBeSent"]
    own = ("about:blank", f"{server.url}/", f"blob:{server.url}/", "data:")
    assert asked and all(url.startswith(own) for url in asked), asked


def until(browser, expression, seconds=20):
    end = time.monotonic() + seconds
    while not (found := browser.js(expression)):
        assert time.monotonic() < end, (expression, browser.js("document.body.innerText"), browser.troubles())
        time.sleep(0.02)
    return found


def fill(browser, query, text):
    browser.js(f"document.querySelector({json.dumps(query)}).value = {json.dumps(text)}")


def press(browser, query):
    browser.js(f"document.querySelector({json.dumps(query)}).click()")


def drop(browser, content):
    """Drops a file on the page, as a hand would."""
    data = base64.b64encode(content).decode()
    browser.js(
        f"""(() => {{ const bytes = Uint8Array.from(atob("{data}"), (c) => c.charCodeAt(0));
        const dataTransfer = new DataTransfer(); dataTransfer.items.add(new File([bytes], "given"));
        document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true,
          cancelable: true }})); }})()"""
    )


def shown(browser):
    rows = "[...document.querySelectorAll('#values tr')].map((r) => [...r.children].map((c) => c.innerText))"
    until(browser, "!document.querySelector('#values').hidden")
    return dict(browser.js(rows))


def test_a_chat_is_shown_as_it_streams_and_markup_stays_text(page):
    HOLD.clear()
    tab = page("echo")
    fill(tab, "#write textarea", MARKUP)
    fill(tab, ".tokens", "59")
    press(tab, "#write .go")
    time.sleep(0.2)
    assert tab.js("document.querySelector('#talk p:last-child').innerText") == ""
    HOLD.set()
    until(tab, "document.querySelector('#write output').innerText.startsWith('59 tokens')")
    said = tab.js("[...document.querySelectorAll('#talk p')].map((p) => p.innerText)")
    assert said == [MARKUP, f"[user]{MARKUP}[assistant][user]"]
    assert tab.js("document.querySelectorAll('#talk img, #talk b').length") == 0
    fill(tab, "#write textarea", "2")
    press(tab, "#write .go")
    until(tab, "document.querySelectorAll('#talk p').length === 4")
    until(tab, "document.querySelector('#talk p:last-child').innerText.includes('[assistant][user]')")


def test_a_text_can_be_stopped_which_frees_its_slot(page, server):
    HOLD.clear()
    tab = page("echo")
    engine = server.service.models["echo"].engine
    fill(tab, "#write textarea", "x")
    press(tab, "#write .go")
    until(tab, "!document.querySelector('#write .stop').hidden")
    while not engine.running:
        time.sleep(0.01)
    press(tab, "#write .stop")
    end = time.monotonic() + 5
    while engine.running and time.monotonic() < end:
        time.sleep(0.01)
    assert engine.running == 0
    until(tab, "!document.querySelector('#write .go').disabled")


def test_a_row_is_answered_and_an_error_is_said(page):
    tab = page("sums")
    assert tab.js("[...document.querySelectorAll('#row input')].map((x) => x.name)") == ["a", "b"]
    fill(tab, "#row [name=a]", "2.5")
    fill(tab, "#row [name=b]", "four")
    press(tab, "#row .go")
    assert shown(tab) == {"sum": "6.5"}
    fill(tab, "#row [name=a]", "many")
    press(tab, "#row .go")
    assert "a row without a number in a" in until(tab, "document.querySelector('#error').innerText")


def test_an_image_that_is_dropped_comes_back_with_its_answer_drawn(page):
    tab = page("sizes")
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[:10] = (255, 0, 0)  # red above; the answer's picture is upside down
    drop(tab, encode_png(pixels))
    assert shown(tab) == {"width": "50", "height": "30"}
    until(tab, "document.querySelector('#file img').naturalWidth === 50")
    pixel = tab.js(
        """(() => { const c = document.createElement('canvas').getContext('2d');
        c.drawImage(document.querySelector('#file img'), 0, 0);
        return [...c.getImageData(5, 25, 1, 1).data]; })()"""
    )
    assert pixel == [255, 0, 0, 255]


def test_a_sound_that_is_dropped_can_be_played_and_is_answered(page):
    tab = page("seconds", width=390)
    drop(tab, wav(np.zeros(4_000, np.float32), 8_000))
    assert shown(tab) == {"seconds": "0.5"}
    until(tab, "document.querySelector('#file audio').duration === 0.5")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the screen"


def test_a_server_with_a_key_asks_for_it(browser):
    with hosted(summer(), key="secret") as server:
        browser("Page.navigate", url=f"{server.url}/")
        until(browser, "document.querySelector('#error')?.hidden === false")
        assert not browser.js("document.querySelector('#key').hidden")
        fill(browser, "#key input", "secret")
        browser.js("document.querySelector('#key').requestSubmit()")
        until(browser, "document.documentElement.dataset.model === 'sums'")
        assert browser.js("document.querySelector('#error').hidden")
