"""Held-out emoji. The split is a pure function of the concept. A held-out emoji of any artist is never trained on.

A *code point key* is the code points of an emoji in lower-case hex, joined by "-", without leading zeros and without
the variation selector fe0f. For example, the waving hand with a light skin tone is "1f44b-1f3fb". A *concept group* is
the key without skin tone, gender, direction and family members. Emoji of one group look nearly the same. Groups are
held out by a hash of their name, not at random and not by artist. Country flags and keycaps are never held out,
because the country of an unseen flag cannot be guessed from its colours.
"""

import hashlib

HELD_OUT_FRACTION = 0.14

_SKIN_TONES = frozenset(("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"))
_JOINER = "200d"
# These stand at the end of a sequence: female, male, facing right. They change the drawing, but not the concept.
_MODIFIERS = frozenset(("2640", "2642", "27a1"))
_PERSON = {"1f468": "1f9d1", "1f469": "1f9d1", "1f466": "1f9d2", "1f467": "1f9d2"}
_FAMILY, _PEOPLE = "1f46a", frozenset(("1f9d1", "1f9d2"))
# Emoji with a separate code point for a gender, or with both a code point and a sequence.
_SAME_CONCEPT = {
  "1f474": "1f9d3",  # old man: older person
  "1f475": "1f9d3",  # old woman
  "1f934": "1fac5",  # prince: person with crown
  "1f478": "1fac5",  # princess
  "1f385": "1f9d1-200d-1f384",  # Santa Claus: Mx Claus
  "1f936": "1f9d1-200d-1f384",  # Mrs. Claus
  "1f46b": "1f9d1-200d-1f91d-200d-1f9d1",  # woman and man holding hands: people holding hands
  "1f46c": "1f9d1-200d-1f91d-200d-1f9d1",  # men holding hands
  "1f46d": "1f9d1-200d-1f91d-200d-1f9d1",  # women holding hands
  "1f57a": "1f483",  # man dancing: woman dancing
  "1f930": "1fac4",  # pregnant woman: pregnant person
  "1fac3": "1fac4",  # pregnant man
  "1f9d1-200d-2764-200d-1f9d1": "1f491",  # couple with heart
  "1f9d1-200d-2764-200d-1f48b-200d-1f9d1": "1f48f",  # kiss
  "1faf1-200d-1faf2": "1f91d",  # handshake
  "1f9d1-200d-1f430-200d-1f9d1": "1f46f",  # people with bunny ears
  "1f9d1-200d-1faef-200d-1f9d1": "1f93c",  # people wrestling
}


def codepoint_key(text: str) -> str:
  """Code point key of an emoji ("👋🏻" -> "1f44b-1f3fb")."""
  return normalize_key("-".join(f"{ord(character):x}" for character in text))


def normalize_key(hex_name: str) -> str:
  """Code point key of a vendor's file name ("0023-FE0F-20E3" -> "23-20e3")."""
  parts = (part.lstrip("0") for part in hex_name.lower().split("-"))
  return "-".join(part for part in parts if part != "fe0f")


def base_key(key: str) -> str:
  """Code point key without skin tones."""
  return "-".join(part for part in key.split("-") if part not in _SKIN_TONES)


def has_skin_tone(key: str) -> bool:
  """True if a code point key has a skin tone."""
  return base_key(key) != key


def concept_group(key: str) -> str:
  """Concept group of a code point key, written as a code point key itself."""
  base = base_key(key)
  if base in ("2640", "2642", "27a1") or not base:  # a modifier or a skin tone alone
    return base or key
  parts = [part for part in base.split(f"-{_JOINER}-") if part not in _MODIFIERS]
  parts = [_PERSON.get(part, part) for part in parts]
  if len(parts) > 1 and set(parts) <= _PEOPLE:
    return _FAMILY
  group = f"-{_JOINER}-".join(parts)
  return _SAME_CONCEPT.get(group, group)


def is_country_flag(key: str) -> bool:
  """True for the flag of a country (two regional indicators) or of a region (a tag sequence)."""
  parts = key.split("-")
  return all("1f1e6" <= part <= "1f1ff" for part in parts) or "e007f" in parts


def is_keycap(key: str) -> bool:
  """True for a keycap."""
  return key.endswith("20e3") or key == "1f51f"  # the keycap 10 has its own code point


def is_held_out(group: str) -> bool:
  """True if a concept group is in the held-out split."""
  if is_country_flag(group) or is_keycap(group):
    return False
  digest = hashlib.sha256(group.encode()).digest()
  return int.from_bytes(digest[:8], "big") < HELD_OUT_FRACTION * 2**64
