"""The page in a real browser: what people see and do. Skipped where playwright or a Chromium is missing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import colourful
from serving import png, running
from wordmask.segmenter import Segmenter

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)

DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def server(tiny, tiny_eov):
    with running({"err": Segmenter(tiny, name="err"), "eov": Segmenter(tiny_eov, name="eov")}) as one:
        yield one


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        one = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield one
        one.close()


@pytest.fixture
def open_page(browser, server):
    """Open the page; at the end, check that it asked nobody else, and that nothing went wrong in it."""
    contexts, asked, wrong = [], [], []

    def call(**details):
        context = browser.new_context(accept_downloads=True, **{**DESKTOP, **details})
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(server.url)
        page.wait_for_selector("#model option[value=eov]", state="attached")
        return page

    yield call
    for context in contexts:
        context.close()
    assert asked
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked), asked
    assert not [message for message in wrong if "Failed to load resource" not in message], (
        "refusals are told, nothing else"
    )


def choose(page, content: bytes, words: list[str]) -> None:
    """Choose a picture and type words, as a person would; wait for the result."""
    page.set_input_files("#file", {"name": "garden.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector("#view:not([hidden])")
    for word in words:
        page.fill("#word", word)
        page.press("#word", "Enter")
    settled(page)


def settled(page) -> None:
    """Wait until what was asked for last is shown."""
    page.wait_for_selector("body:not(.busy)")


def pixels(page, canvas: str) -> np.ndarray:
    """What a canvas shows, (N, 4) uint8, at every fifth pixel of every fifth row."""
    script = """one => { const all = one.getContext('2d').getImageData(0, 0, one.width, one.height);
                const {data, width, height} = all, found = [];
                for (let y = 2; y < height; y += 5) for (let x = 2; x < width; x += 5)
                  found.push(...data.subarray(4 * (y * width + x), 4 * (y * width + x) + 4));
                return found; }"""
    return np.array(page.eval_on_selector(f"#{canvas}", script), np.uint8).reshape(-1, 4)


def colour_of(row) -> tuple[int, ...]:
    text = row.evaluate("one => one.style.getPropertyValue('--colour')")
    return tuple(int(text[place : place + 2], 16) for place in (1, 3, 5))


WORDS = ["sky", "car, automobile", "grass", "sea"]


def test_upload_words_overlay(open_page, server):
    page = open_page()
    choose(page, png(), WORDS)
    assert page.locator(".chip").count() == 4
    expected = server.segment(words=WORDS).json()["regions"]
    rows = page.locator("#regions button")
    assert [rows.nth(number).locator(".name").inner_text() for number in range(rows.count())] == [
        one["name"] for one in expected
    ]
    assert [rows.nth(number).locator("b").inner_text() for number in range(rows.count())] == [
        f"{one['score']:.2f}" for one in expected
    ]
    fill = pixels(page, "fill")
    shown = {tuple(colour) for colour in fill[fill[..., 3] == 255][:, :3].tolist()}
    assert shown == {colour_of(rows.nth(number)) for number in range(rows.count())}
    for number, region in enumerate(expected):
        share = (fill[..., :3] == colour_of(rows.nth(number))).all(axis=-1).mean()
        assert share == pytest.approx(region["area"] / (48 * 64), abs=0.02)
    assert "regions of" in page.inner_text("#status")


def test_hover_click_and_escape(open_page):
    page = open_page()
    choose(page, png(), WORDS)
    box = page.locator("#frame").bounding_box()  # its middle is the corner of four pixels: aim beside it
    page.mouse.move(box["x"] + 0.51 * box["width"], box["y"] + 0.51 * box["height"])
    page.wait_for_selector("#tip:not([hidden])")
    name = page.inner_text("#tip b")
    assert "score 0." in page.inner_text("#tip small")
    assert page.locator("#regions button.lit .name").inner_text() == name
    page.mouse.click(box["x"] + 0.51 * box["width"], box["y"] + 0.51 * box["height"])
    alone = page.locator("#regions button[aria-pressed=true]")
    assert alone.locator(".name").inner_text() == name
    fill = pixels(page, "fill")
    assert set(fill[:, 3].tolist()) == {0, 218}, "all but the region is veiled"
    assert page.locator("#names span").count() <= 1
    page.keyboard.press("Escape")
    assert page.locator("#regions button[aria-pressed=true]").count() == 0
    assert 218 not in pixels(page, "fill")[:, 3]


def test_how_words_were_understood_is_shown(open_page):
    page = open_page()
    choose(page, png(), ["purple car, cobblestone"])
    settled(page)
    assert page.inner_text("#understood") == "1 word: purple car, also called cobblestone — write ; between classes"
    page.fill("#word", "sky")
    page.press("#word", "Enter")
    settled(page)
    assert page.locator("#understood").is_hidden()
    page.fill("#word", "cafe\u0301")
    page.press("#word", "Enter")
    page.fill("#word", "café")
    page.press("#word", "Enter")
    settled(page)
    assert page.locator(".chip").count() == 3


def test_the_keyboard_does_everything(open_page):
    page = open_page()
    choose(page, png(), [])
    page.focus("#word")
    page.keyboard.type("sky;grass;sea")
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator(".chip").count() == 3
    page.keyboard.press("Backspace")  # takes the last word back to be edited
    assert page.input_value("#word") == "sea"
    page.keyboard.type(" lion")
    page.keyboard.press("Enter")
    assert page.locator(".chip .text").all_inner_texts() == ["sky", "grass", "sea lion"]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove sea lion"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Delete")
    assert page.locator(".chip .text").all_inner_texts() == ["sky", "sea lion"]
    settled(page)
    page.locator("#regions button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#regions button").first.get_attribute("aria-pressed") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.locator("#release").is_hidden()


def test_every_control_has_a_name(open_page):
    page = open_page()
    choose(page, png(), WORDS)
    script = """all => all.map(one => [one.outerHTML, one.labels?.length || one.ariaLabel || one.textContent.trim()])
                .filter(([, name]) => !name)"""
    assert page.eval_on_selector_all("button, input, select, a", script) == []
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_attribute("html", "lang") == "en"
    assert "Picture with" in page.get_attribute("#picture", "alt")


def test_opacity_names_tasks_and_models(open_page):
    page = open_page()
    choose(page, png(96, 128), WORDS)
    page.fill("#opacity", "80")
    assert page.eval_on_selector("#fill", "one => one.style.opacity") == "0.8"
    assert page.locator("#names span").count() > 0
    page.uncheck("#named")
    assert page.locator("#names span").count() == 0
    assert page.locator("#tasks").is_hidden()
    page.select_option("#model", "eov")
    with page.expect_response("**/v1/segment") as answered:
        page.locator("#task label", has_text="instance").click()
    settled(page)
    assert answered.value.json()["task"] == "instance"
    assert "task=instance" in page.locator("#shell").text_content()


def test_downloads(open_page, tmp_path):
    page = open_page()
    choose(page, png(), WORDS)
    with page.expect_download() as download:
        page.click("#coco")
    download.value.save_as(tmp_path / "coco.json")
    assert download.value.suggested_filename == "garden.coco.json"
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert coco["images"] == [{"id": 1, "file_name": "garden.png", "height": 48, "width": 64}]
    assert len(coco["annotations"]) == page.locator("#regions button").count()
    with page.expect_download() as download:
        page.click("#png")
    download.value.save_as(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as drawn:
        assert drawn.size == (64, 48)
        assert (np.array(drawn.convert("RGB")) != colourful(48, 64)).any()
    row = page.locator("#regions button").first
    row.click()
    with page.expect_download() as download:
        page.click("#png")
    download.value.save_as(tmp_path / "cut.png")
    assert download.value.suggested_filename == f"garden.{row.locator('.name').inner_text()}.png"
    with Image.open(tmp_path / "cut.png") as cut:
        opacity = np.array(cut)[..., 3]
        first = next(one for one in coco["annotations"] if one["id"] == int(row.get_attribute("data-id")))
        assert list(cut.size) == first["bbox"][2:]
        assert (opacity == 255).sum() == first["area"]


def test_paste_and_drop(open_page):
    script = (
        "([kind, where, bytes]) => { const data = new DataTransfer();"
        " data.items.add(new File([new Uint8Array(bytes)], 'pasted.png', {type: 'image/png'}));"
        " const event = kind === 'paste' ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true})"
        " : new DragEvent(kind, {dataTransfer: data, bubbles: true});"
        " document.querySelector(where).dispatchEvent(event); }"
    )
    for kind in ("paste", "drop"):
        page = open_page()
        page.evaluate(script, [kind, "body", list(png())])
        page.wait_for_selector("#view:not([hidden])")
        assert page.inner_text("#status") in ("", "Name what to look for.")
        page.fill("#word", "sky")
        page.press("#word", "Enter")
        page.wait_for_selector("#regions button")


def test_a_made_up_scene(open_page):
    page = open_page()
    page.click("#sample")
    page.wait_for_selector("#regions button")
    assert page.locator(".chip").count() > 3


def test_what_goes_wrong_is_said(open_page, server):
    page = open_page()
    choose(page, png(), ["word " * 80])
    page.wait_for_selector("#status.wrong")
    assert "CLIP reads 77" in page.inner_text("#status")
    page.route("**/v1/segment", lambda route: route.abort())
    page.fill("#word", "sky")
    page.press("#word", "Enter")
    page.wait_for_selector("#status.wrong >> text=does not answer")


def test_the_documentation(open_page, server):
    page = open_page()
    page.goto(f"{server.url}/docs")
    page.get_by_text("/v1/segment", exact=True).wait_for()
    text = page.inner_text("main")
    for part in ("multipart/form-data", "application/json", "threshold", "/healthz", "/metrics", "429"):
        assert part in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits(open_page, device, scheme, tmp_path):
    """Nothing is wider than the screen, letters stand out from their ground, and a finger can hit what it is meant
    to."""
    page = open_page(**device, color_scheme=scheme)
    choose(page, png(240, 320), [*WORDS, "a long name of something that nobody has ever seen in any picture"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = [sum(int(part) for part in colour.strip("rgb()").split(",")[:3]) / 3 for colour in (ground, ink)]
    assert abs(light[0] - light[1]) > 150
    assert (light[0] > light[1]) == (scheme == "light")
    heights = page.eval_on_selector_all(
        ".button:not(.small)", "all => all.filter(one => one.offsetParent).map(one => one.offsetHeight)"
    )
    assert heights
    assert min(heights) >= 40
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    assert Path(shot).stat().st_size > 10_000
