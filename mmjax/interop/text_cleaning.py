"""Clean-up of texts before tokenization, as in open_clip, OpenAI's CLIP and transformers' slow CLIPTokenizer."""

import html
import re
import string

from mmjax.interop.errors import InteropError


def cleaned(text: str, clean: str) -> str:
  """Clean a text up.

  Args:
    text: the text.
    clean: "lower" (repair it with ftfy, resolve HTML entities twice, convert it to lower case), "whitespace" (as
      "lower", but keep the case), "canonicalize" (as "lower", and remove punctuation), "repair" (repair it and convert
      it to lower case: transformers' slow CLIPTokenizer), or "" (nothing).
  Raises: InteropError: ftfy is not installed.
  """
  if not clean:
    return text
  text = _repaired(text)
  if clean == "repair":
    return re.sub(r"\s+", " ", text).strip().lower()
  text = html.unescape(html.unescape(text)).strip()
  if clean == "canonicalize":
    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
  text = " ".join(text.split()).strip()
  return text if clean == "whitespace" else text.lower()


def _repaired(text: str) -> str:
  try:
    import ftfy
  except ImportError as error:
    raise InteropError("the model's texts are repaired with ftfy: pip install 'mmjax[interop]'") from error
  return ftfy.fix_text(text)
