"""The JavaScript of the page prepares images as Pillow does.

Squares are equal bit for bit. Of other images Pillow 13 may resize the columns first, which rounds some pixels
otherwise.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import mmjax.deploy
from mmjax.interop.run_image import transform_to_json
from tests.deploy import runs
from tests.skips import NODE

PAGE = Path(mmjax.deploy.__file__).parent / "page"
SCRIPT = """
import { readFileSync } from "node:fs";
import { preprocess } from "PAGE/model.mjs";
const { settings, images } = JSON.parse(readFileSync(0));
console.log(JSON.stringify(images.map((image) => Array.from(preprocess(image, settings)))));
"""


@pytest.mark.parametrize("data", [{}, {"trim": True}, {"square": "squash", "interpolation": "bicubic"}])
def test_images(tmp_path, data):
  node = shutil.which("node")
  if node is None:
    pytest.skip(NODE)
  run = runs.two_towers(tmp_path, **data)
  images = runs.images()
  if data.get("interpolation") == "bicubic":
    images = images[:1]  # what bicubic adds at edges is cut off between the passes: their order matters more
  pixels = [np.asarray(image.convert("RGBA")).flatten().tolist() for image in images]  # as a canvas gives them
  given = [{"width": i.width, "height": i.height, "data": data} for i, data in zip(images, pixels, strict=True)]
  (tmp_path / "a.mjs").write_text(SCRIPT.replace("PAGE", PAGE.as_posix()))
  done = subprocess.run(
    [node, str(tmp_path / "a.mjs")],
    input=json.dumps({"settings": transform_to_json(run.transform), "images": given}),
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  for found, image in zip(json.loads(done.stdout), images, strict=True):
    level = 0 if image.width == image.height else 2 / 255 / min(run.transform.normalize.std)  # 1 of colour, 1 of alpha
    np.testing.assert_allclose(np.reshape(found, (16, 16, 3)), run.preprocess(image), rtol=0, atol=level + 1e-6)
