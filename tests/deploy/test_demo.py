"""The page of the service in headless Chromium, wide and as on a phone: every part is used as a person would."""

import importlib.util
import shutil

import numpy as np
import pytest
from PIL import Image

from mmjax.deploy.serving.index import made_index
from mmjax.deploy.serving.served import (
  ANSWER,
  ATTENTION,
  CAPTION,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
)
from mmjax.deploy.serving.service import Service
from tests.deploy.browser import browsing
from tests.deploy.listening import listening
from tests.deploy.served import COLORS, fake, png
from tests.skips import CHROMIUM, SERVE

ALL = (EMBED_IMAGE, EMBED_TEXT, CLASSIFY, CLASSIFY_TEXT, CAPTION, ANSWER, ATTENTION)


@pytest.fixture
def chromium():
  if importlib.util.find_spec("fastapi") is None:
    pytest.skip(SERVE)
  path = shutil.which("chromium")
  if path is None:
    pytest.skip(CHROMIUM)
  return path


def drawn(path, least_colors=60):
  """The size of a screenshot, on which something is drawn."""
  pixels = np.asarray(Image.open(path).convert("RGB"))
  assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > least_colors
  return pixels.shape[1], pixels.shape[0]


def press(section):
  return f"document.querySelector('#{section} form').requestSubmit()"


def said(section):
  return f"document.querySelector('#{section} .out').innerText"


def test_every_part_of_the_page_works(chromium, tmp_path):
  from mmjax.deploy.serving.app import make_app
  from mmjax.deploy.serving.metrics import Metrics

  photos = tmp_path / "photos"
  photos.mkdir()
  for name, color in COLORS.items():
    (photos / f"a_{name}_thing.png").write_bytes(png(color, (120, 80)))
  index = made_index(fake(), photos, tmp_path / "index.npz", 100_000)
  app = make_app(Service(fake(ALL), index=index, max_pixels=100_000), Metrics(), key="secret")
  with listening(app) as (url, _), browsing(chromium, tmp_path / "profile") as page:
    page.size(1200, 900)
    page.ask("Page.navigate", url=url)
    page.until("document.title === 'mmjax: fake' && !document.getElementById('words').hidden")
    page.run("document.getElementById('query').value = 'green'; " + press("words"))
    page.until(f"{said('words')}.includes('API key')")
    page.run("document.getElementById('secret').value = 'secret'; " + press("key") + "; " + press("words"))
    loaded = "[...document.querySelectorAll('#words img')].filter(image => image.naturalWidth > 0).length"
    page.until(f"{loaded} === 3")
    assert page.run(said("words")).split("\n")[:2] == ["1.000", "a_green_thing.png"]
    root = page.ask("DOM.getDocument")["root"]["nodeId"]
    field = page.ask("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    page.ask("DOM.setFileInputFiles", nodeId=field, files=[str(photos / "a_blue_thing.png")])
    page.until("document.getElementById('preview').naturalWidth === 120 && !document.querySelector('button:disabled')")
    page.run("document.getElementById('similar').click()")
    page.until(f"{said('image')}.startsWith('1.000\\na_blue_thing.png')")
    page.run("document.getElementById('names').value = 'red\\nblue\\n'; " + press("labels"))
    page.until(f"{said('labels')}.startsWith('blue')")
    page.run(press("own"))
    page.until(f"{said('own')}.startsWith('blue\\n100%')")
    page.run("document.getElementById('sentence').value = 'green'; " + press("typed"))
    page.until(f"{said('typed')}.startsWith('green\\n100%')")
    page.run("document.getElementById('asked').value = 'Which?'; " + press("question"))
    page.until(f"{said('question')} === 'Which? blue'")
    page.run("document.getElementById('looked').value = 'sea blue'; " + press("attention"))
    page.until("document.querySelectorAll('#attention canvas').length === 2")
    yellow = "[...document.querySelectorAll('#attention canvas')[1].getContext('2d').getImageData(144, 48, 1, 1).data]"
    dark = yellow.replace("144, 48", "48, 144")
    assert sum(page.run(yellow)) > sum(page.run(dark)) + 150
    page.screenshot(tmp_path / "wide.png")
    assert drawn(tmp_path / "wide.png")[0] == 1200
    page.run("document.getElementById('caption').click()")
    page.until(f"{said('image')} === 'it is blue'")
    page.size(390, 844, phone=True)
    page.screenshot(tmp_path / "phone.png")
    assert drawn(tmp_path / "phone.png")[0] == 390  # nothing is wider than the screen
    small = "[...document.querySelectorAll('button')].filter(one => one.offsetParent && one.offsetHeight < 44).length"
    assert page.run(small) == 0
    page.ask("Page.navigate", url=f"{url}docs")
    page.until("document.querySelectorAll('section').length > 8")
