"""The page in a headless Chromium: elements are chosen, a run is made, a structure is turned, a CIF is read again."""

import shutil
import socket
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
Structure = pytest.importorskip("pymatgen.core").Structure
sampled = pytest.importorskip("tests.app.test_server").sampled
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def serve(folder, runner):
    """A server in a thread: its address, and what ends it."""
    import uvicorn

    from crystalgfn.app.server import AppSettings, create_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(AppSettings(runs=folder, runner=runner))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", loop="asyncio", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)

    def close():
        server.should_exit = True
        thread.join(30)

    return f"http://127.0.0.1:{port}/", close


def runs(work):
    """A runner for tests: a run of one crystal waits until it is stopped, others write the crystals of a run."""
    if work.job.request.get("n") == 1:
        work.stop.wait(30)
        return "stopped"
    return sampled(work)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens the page in a window of its own; at the end no script or policy has complained."""
    address, close = serve(tmp_path / "page", runs)
    pages, said = [], []

    def at(width=1400, height=900, url=address):
        page = chromium.new_context(viewport={"width": width, "height": height}).new_page()
        page.on(
            "console", lambda one: one.type in ("error", "warning") and "422" not in one.text and said.append(one.text)
        )
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("response", lambda one: one.status >= 500 and said.append(f"{one.status} {one.url}"))
        page.goto(url)
        pages.append(page)
        return page

    yield at
    for page in pages:
        page.context.close()
    close()
    assert said == []


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")  # thirds, of which eight digits are written
def test_elements_a_run_a_structure_and_its_cif(opened, tmp_path):
    """With the command itself, as a visitor would."""
    url, close = serve(tmp_path / "runs", None)
    page = opened(url=url)
    try:
        for symbol in ("Na", "Cl"):
            page.click(f"[data-symbol={symbol}]")
        assert page.inner_text("#sentence") == "Every crystal holds Na, Cl. No others."
        page.fill("#n_atoms_high", "4")
        page.fill("#n", "2")
        page.click("#go")
        page.wait_for_selector("#state.running")
        page.wait_for_selector("#state.done", timeout=90_000)
        assert "chemsys=Na-Cl" in page.text_content("#command")
        canvas = page.locator(".card canvas").first
        page.wait_for_selector(".card:first-child .key")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        page.mouse.move(box["x"] + 60, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 90, steps=4)
        page.mouse.up()
        assert int(canvas.get_attribute("data-turned")) >= 4
        with page.expect_download() as download:
            page.locator(".card .cif").first.click()
        assert download.value.suggested_filename.endswith(".cif")
        download.value.save_as(tmp_path / "one.cif")
        read = Structure.from_file(tmp_path / "one.cif")
        assert {one.symbol for one in read.composition.elements} == {"Na", "Cl"}
    finally:
        page.close()  # before the server, which it asks now and then
        close()


def test_a_picture_is_drawn_and_changes_when_turned(opened):
    page = opened()
    page.fill("#n", "2")
    page.click("#go")
    page.wait_for_selector(".card:first-child .key")
    canvas = page.locator(".card canvas").first
    before = canvas.evaluate("c => c.toDataURL()")
    assert len(before) > 10_000  # not an empty picture
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    assert canvas.evaluate("c => c.toDataURL()") != before
    page.locator(".card .diagrams").first.click()
    page.wait_for_selector(".figures svg .peak", state="attached")


def test_the_keyboard_alone_suffices(opened):
    page = opened()
    press = page.keyboard.press

    def tab_to(selector):
        for _ in range(60):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            press("Tab")
        raise AssertionError(f"{selector} is not reached")

    tab_to("[role=tab]")
    press("ArrowRight")
    assert page.get_attribute("#tab-discover", "aria-selected") == "true"
    press("ArrowLeft")
    tab_to(".element")
    for key in ("m", "ArrowDown", "Enter", "ArrowUp", "ArrowUp", "n"):
        press(key)
    marks = {one: page.get_attribute(f"[data-symbol={one}]", "data-mark") for one in ("Li", "Na", "H")}
    assert marks == {"Li": "must", "Na": "must", "H": "not"}
    assert page.get_attribute("[data-symbol=Na]", "aria-label") == "Na: must occur"
    tab_to("#n")
    press("Control+a")
    page.keyboard.type("2")
    tab_to("#go")
    press("Enter")
    page.wait_for_selector(".card:first-child .key")
    tab_to(".card canvas")
    press("ArrowRight")
    assert page.locator(".card canvas").first.get_attribute("data-turned") == "1"
    with page.expect_download() as download:
        tab_to(".card .cif")
        press("Enter")
    assert download.value.suggested_filename == "0001_LiMn2O4_227.cif"


def test_words_fill_the_form_and_are_never_markup(opened):
    page = opened()
    page.fill("#prompt", "cubic Li-Mn-O spinel, <img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    page.wait_for_selector("#said .unread")
    assert page.get_attribute("[data-symbol=Mn]", "data-mark") == "must"
    assert page.is_checked("[name=system][value=cubic]") and page.input_value("#prototypes") == "spinel"
    assert "onerror" in page.inner_text("#said .unread") and page.locator("#said img").count() == 0


def test_wrong_input_is_said_and_the_server_goes_on(opened):
    page, other = opened(), opened()
    page.click("#tab-predict")
    page.fill("#formula", "not a formula")
    page.click("#go")
    page.wait_for_selector("#fault:not(:empty)")
    assert "formula" in page.inner_text("#fault")
    other.fill("#n", "2")
    other.click("#go")
    other.wait_for_selector(".card:first-child .key")


def test_a_run_is_stopped_and_found_again(opened):
    page = opened()
    page.fill("#n", "1")
    page.click("#go")
    page.wait_for_selector("#state.running")
    again = opened(url=page.url)
    again.wait_for_selector("#state.running")
    again.click("#stop")
    page.wait_for_selector("#state.stopped", timeout=10_000)


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_fits_and_is_painted_soon(opened, width):
    page = opened(width=width)
    page.wait_for_selector("#runs a, #welcome h2")
    (painted,) = page.evaluate("performance.getEntriesByName('first-contentful-paint').map(one => one.startTime)")
    assert painted < 2000
    assert overflow(page) == 0
    for tab in ("discover", "predict", "evaluate", "sample"):
        page.click(f"#tab-{tab}")
        assert overflow(page) == 0
    box = page.locator("[data-symbol=Fe]").bounding_box()
    assert box["width"] >= 18 and box["height"] >= 24
