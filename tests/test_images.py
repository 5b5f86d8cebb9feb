"""The pictures of the documentation: the drawn figure is current, and every picture is used by a page."""

import re
import runpy

import pytest

from docs.generate import PAGES
from tests.conftest import ROOT

IMAGES = ROOT / "docs" / "images"
PICTURES = sorted(path.name for path in IMAGES.iterdir() if path.suffix in (".png", ".svg"))


def test_the_figure_of_the_network_is_what_its_script_draws(tmp_path):
    path = tmp_path / "network.svg"
    runpy.run_path(str(ROOT / "docs" / "draw_network.py"))["write"](path)
    assert path.read_bytes() == (IMAGES / "network.svg").read_bytes()


def test_the_figure_of_the_network_is_small_text_without_a_date():
    svg = (IMAGES / "network.svg").read_text()
    assert len(svg) < 60_000
    assert "<text" in svg and "dc:date" not in svg


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_on_a_page(name):
    assert [page.name for page in PAGES if f"images/{name}" in page.read_text()]


def test_every_picture_of_a_page_exists():
    shown = {name for page in PAGES for name in re.findall(r"images/([\w.-]+\.(?:png|svg))", page.read_text())}
    assert shown - set(PICTURES) == set()


def test_images_md_says_how_each_picture_was_made():
    text = (IMAGES / "README.md").read_text()
    assert [name for name in PICTURES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_at_most_150_kb(name):
    assert (IMAGES / name).stat().st_size <= 150_000
