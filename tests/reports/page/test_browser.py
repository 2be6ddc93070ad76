"""The page in a real browser: nothing fails, all figures have a size, all text can be read, nothing is too wide."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

import m2sd_cli
from tests.helpers import PATIENCE, Stripes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
DARK = "--blink-settings=preferredColorScheme=0"
MEASURE = """
const luminance = colour => {
  const linear = colour.slice(0, 3).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const parsed = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const measure = view => {
  const page = view.document, low = [], empty = [];
  const background = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parsed(view.getComputedStyle(each).backgroundColor);
      if (colour[3]) return colour;
    }
    return [255, 255, 255, 1];
  };
  let texts = 0;
  for (const element of page.body.querySelectorAll("*")) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join("");
    if (!text || ["TITLE", "DESC", "STYLE", "title", "desc"].includes(element.tagName)) continue;
    const style = view.getComputedStyle(element);
    const ink = parsed(element.closest("svg") ? style.fill : style.color);
    const [one, other] = [ink, background(element)].map(luminance);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    texts += 1;
    if (contrast < 4.5) low.push([text.slice(0, 30), contrast]);
  }
  const figures = [...page.querySelectorAll("svg, img")];
  for (const each of figures) {
    const box = each.getBoundingClientRect();
    if (box.width < 8 || box.height < 8) empty.push(each.outerHTML.slice(0, 80));
  }
  const first = () => [...page.querySelectorAll(".sorted tbody tr")]
    .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top).map(row => row.cells[0].textContent);
  const orders = {};
  for (const input of page.querySelectorAll(".sorted input")) { input.checked = true; orders[input.id] = first(); }
  return {width: page.documentElement.scrollWidth, texts, low, empty, figures: figures.length, orders,
          paper: view.getComputedStyle(page.body).backgroundColor};
};
const frames = [...document.querySelectorAll("iframe")];
addEventListener("load", () => {
  document.querySelector("pre").textContent = JSON.stringify(frames.map(frame => measure(frame.contentWindow)));
});
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt install chromium")


@pytest.fixture(scope="module")
def page(calibrated: Path, stripes: Stripes, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = Path(shutil.copytree(calibrated, tmp_path_factory.mktemp("browser") / ("long-name-" * 12)))
    m2sd_cli.rename("red", "<img src=x onerror=alert(1)>" + "x" * 80, run=run)
    return m2sd_cli.report(run=run, test=stripes.labelled, data=stripes.folder, device="cpu")


def browse(file: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    words = [CHROMIUM, *FLAGS, f"--user-data-dir={file.parent / 'profile'}", *flags, "--dump-dom", file.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


def measured(page: str, folder: Path, *flags: str) -> list[dict[str, Any]]:
    """Measure the page in frames as wide as a phone and as a screen; the measuring script is the only one there."""
    alone = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    frames = "".join(f'<iframe style="width:{width}px" srcdoc="{escape(alone)}"></iframe>' for width in (360, 1200))
    head = (
        "<!DOCTYPE html><meta charset=utf-8><style>:root{color-scheme:light dark}iframe{border:0;height:800px}</style>"
    )
    file = folder / "frames.html"
    file.write_text(f"{head}<pre></pre>{frames}<script>{MEASURE}</script>", encoding="utf-8")
    found = re.search("<pre>(.*?)</pre>", browse(file, *flags).stdout, re.S)
    assert found is not None
    measures: list[dict[str, Any]] = json.loads(unescape(found[1]))
    return measures


def test_the_page_opens_without_an_error(page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    assert "How it was made" in browse(file).stdout


@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_all_can_be_seen_in_both_schemes(page: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    phone, screen = measured(page, tmp_path, *flags)
    assert (phone["width"], screen["width"]) == (360, 1200)
    for each in (phone, screen):
        assert each["texts"] > 150
        assert each["low"] == []
        assert each["empty"] == []
        assert each["figures"] > 15
        light = all(int(channel) > 200 for channel in re.findall(r"\d+", each["paper"]))
        assert light == (not flags)
    orders = screen["orders"]
    assert orders["by-name"] == sorted(orders["by-name"], key=str.casefold)
    assert len({tuple(order) for order in orders.values()}) > 2


def test_a_planted_fault_is_found(page: str, tmp_path: Path) -> None:
    bad = page.replace(
        "<main>", '<main><p style="color:#999">pale</p><div style="width:500px">wide</div><svg width=1></svg>'
    )
    phone, _ = measured(bad, tmp_path)
    assert phone["width"] > 360
    assert [text for text, _ in phone["low"]] == ["pale"]
    assert len(phone["empty"]) == 1
