"""Texts that are values which Python, NumPy, JSON or JavaScript printed, such as `['a cat', None]`."""

import re

_LONGEST = 20_000
"""Most characters of a value that is read to its end. Of a longer one, the start decides."""
_TOKEN = re.compile(
  r"""\s+
    | (?P<text>[bBuUrR]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
    | (?P<value>[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?j?(?!\w) | [-+]inf\b | \.\.\. | <NA> | <class\ '[^']*'>)
    | (?P<maker>[A-Za-z_][\w.]*(?=\())
    | (?P<word>[A-Za-z_][\w.]*)
    | (?P<open>[\[({]) | (?P<close>[\])}]) | (?P<mark>[,:=])""",
  re.VERBOSE | re.DOTALL,
)
_VALUES = ("none", "nan", "nat", "na", "null", "true", "false", "inf", "infinity", "undefined", "np.true_", "np.false_")
_MAKERS = (
  "array", "ndarray", "tensor", "eagertensor", "series", "ordereddict", "odict", "defaultdict", "deque", "counter",
  "frozenset", "set", "list", "tuple", "dict", "dict_keys", "dict_values", "dict_items", "bytearray", "range",
)  # fmt: skip
_LIBRARIES = ("np.", "numpy.", "torch.", "tf.", "jnp.", "pd.", "collections.")
_FIELD = re.compile(r"\(\s*[A-Za-z_]\w+\s*=[^=]")
_OBJECT = re.compile(r"<[\w.]+(?: object)? at 0x[0-9a-fA-F]+>|<tf\.Tensor: .*>|\[object \w+\]", re.DOTALL)
_QUOTED = re.compile(r"""[\[{][\[{\s]*[bu]?['"]""")
_LONG = re.compile(r"""[\[({][\[({\s]*[bu]?['"\d]""")
_PAIRS = {"]": "[", ")": "(", "}": "{"}


def is_printed(text: str) -> bool:
  """True for a list, tuple, set, object, array, tensor or bytes that was printed.

  Words in brackets ("[music]", "(a cat)") and numbers ("2024", "(2024)") are texts: a text of digits may be meant.

  Example:
    >>> [is_printed(text) for text in ("['a cat', None]", "array([1, 2])", "[music]", "(a cat)", "2024")]
    [True, True, False, False, False]
  """
  if text[0] == "b" and text[1:2] in ("'", '"'):
    return len(text) > 2 and text[-1] == text[1]
  if text in ("np.True_", "np.False_"):
    return True
  if text[-1] not in "])}>":
    return False
  if _OBJECT.fullmatch(text) or _is_quoted(text):
    return True
  return _LONG.match(text) is not None if len(text) > _LONGEST else _is_value(text)


def _is_quoted(text: str) -> bool:
  """True for a list or an object of quoted texts, also where a quote in a text would end it: ['it's a cat']."""
  start = _QUOTED.match(text)
  if start is None or text[-1] not in "]}":
    return False
  return text.rstrip("]} \t\n")[-1:] in ("'", '"') or ("{" in start[0] and ":" in text)


def _is_value(text: str) -> bool:
  """True if all of a text is one value in brackets, or one call such as array([1])."""
  place, inside, tuple_like, before = 0, list[str](), False, ""
  while place < len(text):
    token = _TOKEN.match(text, place)
    if token is None or (place and not inside and before not in ("maker", "")):
      return False
    place, kind, found = token.end(), token.lastgroup or "", token[0]
    if kind == "open":
      tuple_like |= not inside and (found != "(" or before == "maker" or text[place:].lstrip()[:1] == ")")
      inside.append(found)
    elif kind == "close":
      if not inside or inside.pop() != _PAIRS[found]:
        return False
    elif not _is_part(kind, found, text, place, inside, before):
      return False
    tuple_like |= found == "," and inside == ["("]
    before = (found if found == "=" else kind) or before
  return tuple_like and not inside


def _is_part(kind: str, found: str, text: str, place: int, inside: list[str], before: str) -> bool:
  """True for a token that may stand where it is. `before`: the kind of the token before it, or "="."""
  if kind == "maker":
    name = found.casefold()
    known = name.startswith(_LIBRARIES) or name.rpartition(".")[2] in _MAKERS
    return known or (len(found) > 1 and found[0].isupper() and _FIELD.match(text, place) is not None)
  if not inside:
    return False
  if kind == "mark":
    return found == "," or (found == ":" and inside[-1] == "{") or (found == "=" and inside[-1] == "(")
  if kind != "word":
    return True
  after = text[place:].lstrip()[:1]
  named = (after == ":" and inside[-1] == "{") or (after == "=" and inside[-1] == "(")
  return named or before == "=" or found.casefold() in _VALUES
