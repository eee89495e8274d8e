"""The slice browser as a person meets it: JupyterLab on loopback in a real Chromium, driven by Playwright.

With SAHLIB_SCREENSHOTS=FOLDER pictures of what was on screen stay there; with SAHLIB_QUICK_OUTPUT=FOLDER, a finished
`quick` run's --output, they show networks that have learned something. docs/browser.png was made so.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers import lab
from helpers.pages import page_of
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sahlib.browser import contents, embedded
from sahlib.data.slices import preprocess
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.data.splits import Split
from sahlib.scoring import metrics
from sahlib.study import Study, digest
from sahlib.training import runs
from sahlib.workspace import NOTEBOOKS

pytestmark = pytest.mark.skipif(not lab.CHROMIUM, reason="no Chromium is installed: apt-get install chromium")

SHOWN = ".sah[data-row]"
MOVES = 100


def test_notebook_05_in_jupyterlab(tmp_path):
    """Run all, then what a person would touch: the picture and the scores follow, and the console stays silent."""
    quick = os.environ.get("SAHLIB_QUICK_OUTPUT")
    parameters = {"profile": "quick" if quick else "smoke", "output": quick or str(tmp_path / "output"), "changes": {}}
    if not quick:  # two epochs from MONAI's start leave probabilities that a threshold can part; from the prior's, none
        parameters["changes"] = {"further_recipes": []}
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / "05_evaluation.ipynb")), parameters)
    nbformat.write(notebook, folder / "05_evaluation.ipynb")
    with lab.jupyterlab(folder, _home(tmp_path)) as address, lab.chromium() as page:
        lab.run_all(page, address, "05_evaluation.ipynb", SHOWN)
        page.locator(".sah").scroll_into_view_if_needed()
        _keep(page, "browser")
        assert page.locator(".sah canvas").count() == 5  # CT and four networks
        _what_a_person_would_touch(page)
        for overlay in ("outline", "probability", "errors", "gate"):
            _changes(page, lambda overlay=overlay: page.get_by_label("Networks show").select_option(overlay), panel=3)
            _keep(page, f"browser_{overlay}")
        page.get_by_label("Networks show").select_option("area")
        _changes(page, lambda: page.get_by_label("Window").select_option(label="subdural 75/215"))
        page.get_by_text("from the scan").wait_for()
        _keep(page, "browser_subdural")
        assert page.problems == []


@pytest.mark.parametrize("size", [(1200, 900), (390, 844)], ids=["desk", "phone"])
def test_the_same_viewer_in_a_page_from_the_file_system(tmp_path, size):
    workspace = tmp_path / "workspace"
    runs_of_both = [runs.find(path) for path in _two_runs_on_many_slices(workspace, slices=150, size=64)]
    page_file = tmp_path / "page.html"
    page_file.write_text(page_of(embedded.embed(contents.of(*runs_of_both), ["P0000"], "those of one", 10**6)))
    with lab.chromium(*size) as page:
        page.goto(page_file.as_uri())
        page.wait_for_selector(SHOWN)
        _what_a_person_would_touch(page)
        _keep(page, f"page_{size[0]}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0] and page.problems == []


def test_fingers_go_on_and_enlarge(tmp_path):
    """A swipe goes through slices, two fingers enlarge every picture alike, and a double click takes it back."""
    workspace = tmp_path / "workspace"
    (run, _) = [runs.find(path) for path in _two_runs_on_many_slices(workspace, slices=50, size=64)]
    page_file = tmp_path / "page.html"
    page_file.write_text(page_of(embedded.embed(contents.of(run), ["P0000"], "all", 10**6)))
    with lab.chromium(390, 844) as page:
        page.goto(page_file.as_uri())
        page.wait_for_selector(SHOWN)
        page.locator(".sah-panels").press("Home")
        box = page.locator(".sah canvas").first.bounding_box()
        x, y = box["x"] + 90, box["y"] + 60
        hand = page.context.new_cdp_session(page)

        def touch(kind, *fingers):
            points = [{"x": at, "y": y, "id": k} for k, at in enumerate(fingers)]
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        touch("touchStart", x)
        for moved in range(12, 61, 12):
            touch("touchMove", x - moved)
        touch("touchEnd")
        page.wait_for_selector(".sah[data-row='2']")
        touch("touchStart", x - 20, x + 20)
        touch("touchMove", x - 40, x + 40)
        touch("touchEnd")
        shapes = page.locator(".sah canvas").evaluate_all("all => all.map(canvas => canvas.style.transform)")
        assert len(set(shapes)) == 1 and "scale(2)" in shapes[0]
        page.locator(".sah canvas").first.dblclick()
        assert "scale(1)" in page.locator(".sah canvas").first.evaluate("canvas => canvas.style.transform")
        assert page.problems == []


def _what_a_person_would_touch(page):
    """Keys, wheel, mouse and sliders: the picture follows, and the score where it must."""
    stage = page.locator(".sah-panels")
    page.get_by_role("button", name="Largest").click()
    stage.press("Home")
    _changes(page, lambda: stage.press("ArrowDown"))
    _changes(page, lambda: stage.press("ArrowUp"))
    _changes(page, lambda: _wheel(page))
    page.get_by_role("button", name="Largest").click()
    _changes(page, lambda: stage.press("t"), panel=0)
    stage.press("t")

    scores = page.locator(".sah-note").nth(1)
    page.get_by_label("Threshold").press("End")
    page.wait_for_timeout(50)  # a slider shows with the next frame
    high = scores.inner_text()
    page.get_by_label("Threshold").press("Home")
    page.wait_for_function("high => document.querySelectorAll('.sah-note')[1].innerText !== high", arg=high)

    x, y = (page.locator(".sah canvas").first.bounding_box()[name] + 40 for name in ("x", "y"))
    page.mouse.move(x, y)
    page.mouse.down()
    _changes(page, lambda: page.mouse.move(x + 30, y + 10, steps=3), panel=0)
    page.mouse.up()
    assert page.get_by_label("Window").locator("option:checked").inner_text() == "by hand"
    page.locator(".sah canvas").first.dblclick()
    assert "as the networks see it" in page.locator(".sah-status").inner_text()

    with page.expect_download() as download:
        page.get_by_role("button", name="Export PNG").click()
    assert cv2.imread(str(download.value.path())) is not None
    labels = [canvas.get_attribute("aria-label") for canvas in page.locator(".sah canvas").all()]
    assert all("slice" in label for label in labels)


def test_how_soon_a_slice_of_ten_thousand_is_on_screen(tmp_path, record_property, capsys):
    """From the key to the frame that shows the last of three panels: median of 100 moves."""
    workspace = tmp_path / "workspace"
    first, second = _two_runs_on_many_slices(workspace, slices=10_000, size=256)
    source = (
        "from sahlib import browser\nfrom sahlib.training import runs\nfrom pathlib import Path\n"
        f"browser.browse(*(runs.find(Path(p)) for p in ({str(first)!r}, {str(second)!r})))"
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    kernel = load_notebook_node(str(NOTEBOOKS / "05_evaluation.ipynb")).metadata["kernelspec"]
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, folder / "many.ipynb")
    try:
        with lab.jupyterlab(folder, _home(tmp_path)) as address, lab.chromium() as page:
            lab.run_all(page, address, "many.ipynb", SHOWN)
            page.wait_for_timeout(1000)  # the patient's slices have come
            measured = page.evaluate(LATENCIES, MOVES)
            assert page.problems == []
    finally:
        shutil.rmtree(workspace)  # 0.7 GB
    for what, times in measured.items():
        median = float(np.median(times))
        record_property(f"{what}_ms", median)
        with capsys.disabled():
            print(f"\n  {what}: median {median:.1f} ms, 95 % within {np.percentile(times, 95):.1f} ms ({len(times)})")
        # The goals are for a machine at rest; where others work beside it, several times the goal is still a defect.
        assert median < 5 * GOALS_MS[what]


GOALS_MS = {"key to drawn slice": 16, "first slice of another patient": 100, "frame while the window is dragged": 17}

# From the key to the slice drawn, and to the end of the frame that shows it; then the same for another patient, whose
# slices must come first; then from frame to frame while a mouse drags the window.
LATENCIES = """async moves => {
  const view = document.querySelector('.sah'), stage = view.querySelector('.sah-panels');
  const rest = ms => new Promise(over => setTimeout(over, ms));
  const frame = () => new Promise(requestAnimationFrame), press = key =>
    stage.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
  const timed = async act => {
    const before = view.dataset.row, began = performance.now();
    act();
    while (view.dataset.row === before) {
      if (performance.now() - began > 5000) throw new Error('nothing is shown');
      await rest(0);
    }
    const drawn = performance.now() - began;
    await frame();
    return drawn;
  };
  const slices = [], patients = [], drags = [];
  for (let move = 0; move < moves; move++) {
    slices.push(await timed(() => press(Math.floor(move / 10) % 2 ? 'ArrowUp' : 'ArrowDown')));
    await rest(20);
  }
  for (let move = 0; move < 30; move++) {
    const handle = view.querySelector('input[aria-label=Patient]');
    handle.value = (37 * (move + 1)) % 200; // far from the last, so that nothing was fetched ahead
    patients.push(await timed(() => handle.dispatchEvent(new Event('input'))));
    await rest(150);
  }
  const box = stage.querySelector('canvas').getBoundingClientRect();
  const point = (type, dx) => stage.dispatchEvent(new PointerEvent(type, {
    pointerId: 1, pointerType: 'mouse', bubbles: true, buttons: 1, clientX: box.x + 50 + dx, clientY: box.y + 50,
  }));
  stage.setPointerCapture = () => {};
  point('pointerdown', 0);
  let last = await frame();
  for (let move = 0; move < moves; move++) {
    point('pointermove', move);
    const now = await frame();
    drags.push(now - last);
    last = now;
  }
  point('pointerup', moves);
  const names = ['key to drawn slice', 'first slice of another patient', 'frame while the window is dragged'];
  return Object.fromEntries([slices, patients, drags].map((times, k) => [names[k], times]));
}"""


def _changes(page, act, panel=1):
    """A panel's picture becomes another one."""
    picture = "panel => document.querySelectorAll('.sah canvas')[panel].toDataURL()"
    before = page.evaluate(picture, panel)
    act()
    page.wait_for_function(f"([panel, before]) => ({picture})(panel) !== before", arg=[panel, before])


def _wheel(page):
    page.locator(".sah canvas").nth(1).hover()
    page.mouse.wheel(0, 120)


def _keep(page, name):
    if os.environ.get("SAHLIB_SCREENSHOTS"):
        page.locator(".sah").screenshot(path=Path(os.environ["SAHLIB_SCREENSHOTS"]) / f"{name}.png")


def _home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return home


def _two_runs_on_many_slices(workspace, slices, size):
    """Two finished runs, tested on every slice of a store of one phantom's heads; their folders."""
    study = Study.of_profile("smoke")
    rng = np.random.default_rng(0)
    heads = preprocess(Phantom(1, 0).scan(0), size, [(40, 80)])[0][0]
    y, x = np.mgrid[:size, :size]
    disc = (y - size / 3) ** 2 + (x - size / 2) ** 2 < (size / 10) ** 2
    store = workspace / "data" / "processed" / "phantom-many"
    store.mkdir(parents=True)

    def array(path, dtype, shape):
        return np.lib.format.open_memmap(path, "w+", dtype, shape)

    images, labels = (array(store / f"{name}.npy", np.uint8, (slices, size, size)) for name in ("images", "labels"))
    for start in range(0, slices, len(heads)):
        images[start : start + len(heads)] = heads[: slices - start]
    bleeding = np.arange(slices) < 200
    for row in np.flatnonzero(bleeding):
        labels[row] = disc
    patient = [f"P{row // 50:04d}" for row in range(slices)]
    ids = [f"{p}_{row % 50:02d}" for row, p in enumerate(patient)]
    table = pd.DataFrame({"slice_id": ids, "patient_id": patient, "z": np.arange(slices) % 50, "row_mm": 1.0})
    table = table.assign(column_mm=1.0, thickness_mm=5.0, pixels_SAH=np.where(bleeding, disc.sum(), 0))
    table = table.assign(**{f"pixels_{name}": 0 for name in ("IVH", "IPH", "SDH", "EDH")}, source="")
    table.to_csv(store / "slices.csv", index=False)
    recipe = {"version": 2, "source": {"name": "phantom"}, "size": size, "windows": [[40, 80]]}
    (store / "meta.json").write_text(json.dumps({"digest": "many", "size": size, "recipe": recipe}))
    split = Split(dict.fromkeys(patient, "test"))
    (store / "splits").mkdir()
    pd.Series(split.sides, name="side").rename_axis("patient_id").to_csv(store / "splits" / f"{digest(1)}.csv")

    folders = []
    for model in ("unet", "attention_unet"):
        folder = workspace / "runs" / "phantom" / model / "seed0-many"
        folder.mkdir(parents=True)
        probabilities = array(folder / "probabilities.npy", np.float16, (slices, size, size))
        for row in np.flatnonzero(bleeding):
            probabilities[row] = disc * rng.uniform(0.2, 0.9)
        counts = metrics.pixel_counts(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))
        counts = pd.concat([counts] * slices, ignore_index=True)
        counts.insert(0, "slice_id", ids)
        counts.insert(1, "patient_id", patient)
        counts.to_csv(folder / "counts.csv", index=False)
        record = {"model": model, "seed": 0, "lesions": ["SAH"], "study": study.as_dict()}
        record["recipe"] = {"store": "many", "split": split.digest}
        (folder / "run.json").write_text(json.dumps(record))
        assert runs.find(folder)
        folders.append(folder)
    return folders
