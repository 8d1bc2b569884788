"""The page of ``simulate --html`` in a real browser: what is drawn where, at two widths, and what the browser says of it."""

import json
import re
import struct
import subprocess
import zlib
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

from tests.adapters.test_probe_servers import program
from tests.conftest import Result
from tests.loads import daily

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
pytestmark = pytest.mark.process
# What a reader of the page would see, measured by the browser once the page stands.
PROBE = """
<script>addEventListener("load", () => {
  const box = one => { const {left, right, top, bottom} = one.getBoundingClientRect(); return {left, right, top, bottom} };
  const pictures = [...document.querySelectorAll("svg")].map(svg => ({
    frame: box(svg),
    shapes: Object.fromEntries([...svg.children].map(one => [one.getAttribute("class"), box(one)])),
  }));
  const beyond = [...document.querySelectorAll("body *")].filter(one => box(one).right > innerWidth + 0.5);
  document.title = JSON.stringify({
    width: innerWidth, scrolls: document.documentElement.scrollWidth, beyond: beyond.map(one => one.outerHTML.slice(0, 80)),
    pictures, words: document.body.innerText,
  });
})</script>
"""


@pytest.fixture
def page(cfscale: Callable[..., Result], tmp_path: Path) -> Path:
    """A day that swings, replayed against the default and one policy with a long name."""
    values = "\n".join(f"{value:.3f}" for value in daily(1440))
    (tmp_path / "day.csv").write_text(f"value\n{values}\n")
    words = ("simulate", "day.csv", "--policy", "default", "--policy", "predictive:founding", "--html", "out.html")
    assert cfscale(*words).code == 0
    return tmp_path / "out.html"


def browse(page: Path, width: int, *options: str) -> subprocess.CompletedProcess[str]:
    profile = page.parent / f"profile-{width}"
    command = (
        program(*BROWSERS),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        f"--window-size={width},680",
        *options,
        page.as_uri(),
    )
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def complaints(found: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in found.stderr.splitlines() if ":CONSOLE" in line or "Page load failed" in line]


@pytest.mark.parametrize("width", [1280, 400], ids=["desk", "phone"])
def test_a_browser_draws_demand_capacity_and_decisions_within_the_window(page: Path, width: int) -> None:
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    found = browse(probed, width, "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", found.stdout, re.DOTALL)
    assert title, found.stderr
    seen = json.loads(unescape(title[1]))

    assert complaints(found) == []
    assert (seen["width"], seen["scrolls"], seen["beyond"]) == (width, width, [])
    for words in ("cfscale simulate", "predictive:founding", "decision to grow", "0 to", "1d"):
        assert words in seen["words"].replace("\n", " ")
    assert len(seen["pictures"]) == 4
    for upper, lower in pairwise(seen["pictures"]):
        assert upper["frame"]["bottom"] < lower["frame"]["top"]
    for picture in seen["pictures"]:
        assert_drawn(picture["frame"], picture["shapes"])
    optimum, _, default, _ = (picture["shapes"] for picture in seen["pictures"])
    for shapes in (optimum, default):
        for marks in (shapes["grow"], shapes["shrink"]):  # all day long, below what is decided on
            assert marks["right"] - marks["left"] > width / 4
            assert marks["top"] >= shapes["demand"]["bottom"] - 1


def assert_drawn(frame: dict[str, float], shapes: dict[str, dict[str, float]]) -> None:
    assert list(shapes) == ["demand", "billed", "ready", "grow", "shrink"]
    for name in ("demand", "billed", "ready"):
        shape = shapes[name]
        assert shape["left"] == pytest.approx(frame["left"], abs=2)
        assert shape["right"] == pytest.approx(frame["right"], abs=4)
        assert frame["top"] - 2 <= shape["top"] <= shape["bottom"] <= frame["bottom"] + 2
    assert shapes["demand"]["bottom"] - shapes["demand"]["top"] > 40


def test_the_colours_that_the_key_explains_are_on_the_screen(page: Path) -> None:
    picture = page.with_name("screen.png")
    found = browse(page, 640, f"--screenshot={picture}")
    rows = pixels(picture.read_bytes())
    colours = re.findall(r'<i style="background: #([0-9a-f]{6})">', page.read_text())
    below = {row[at : at + 3] for row in rows[len(rows) // 2 :] for at in range(0, 3 * 640, 3)}  # the key is above

    assert complaints(found) == []
    assert len(colours) == 5
    for colour in colours:
        assert any(alike(one, bytes.fromhex(colour)) for one in below), colour


def alike(one: bytes, other: bytes) -> bool:
    """Whether two colours are the same, but for the edges of a thin line."""
    return max(abs(mine - its) for mine, its in zip(one, other, strict=True)) <= 50


def test_the_console_is_listened_to(page: Path) -> None:
    loud = page.with_name("loud.html")
    loud.write_text(page.read_text().replace("</body>", "<script>nowhere()</script></body>"))

    assert any("nowhere is not defined" in line for line in complaints(browse(loud, 640, "--dump-dom")))


def pixels(image: bytes) -> list[bytes]:
    """The rows of a PNG of eight bits a channel, as red, green and blue."""
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind = struct.unpack_from(">IIBB", image, 16)
    assert (depth, kind in (2, 6)) == (8, True)
    size, at, data = (4 if kind == 6 else 3), 8, b""
    while at < len(image):
        (length,) = struct.unpack_from(">I", image, at)
        if image[at + 4 : at + 8] == b"IDAT":
            data += image[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(data), width * size
    rows, above = [], bytes(stride)
    for start in range(0, height * (stride + 1), stride + 1):
        above = unfiltered(raw[start], raw[start + 1 : start + 1 + stride], above, size)
        rows.append(above if size == 3 else b"".join(above[place : place + 3] for place in range(0, stride, 4)))
    return rows


def unfiltered(kind: int, line: bytes, above: bytes, size: int) -> bytes:
    """One row without its filter, as the PNG specification has it."""
    if kind in (0, 2):
        return bytes([(one + up) & 255 for one, up in zip(line, above, strict=True)]) if kind else line
    row = bytearray(line)
    for at in range(len(row)):
        left, corner = (row[at - size], above[at - size]) if at >= size else (0, 0)
        up = above[at]
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda one: abs(guess - one))
        row[at] = (row[at] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return bytes(row)
