"""The split is a fixed function of the concept."""

import hashlib

import pytest

from mmjax.data import splits
from mmjax.data.emoji_text import LANGUAGES, catalogue


@pytest.mark.parametrize(
  "group, members",
  {
    "👋": "👋 👋🏻 👋🏿",  # skin tones
    "🏃": "🏃 🏃‍♀️ 🏃🏽‍♂️ 🏃‍➡️ 🏃🏿‍♀️‍➡️",  # gender, direction
    "🧑‍🚀": "🧑‍🚀 👩‍🚀 👨🏾‍🚀",  # a job
    "🧑": "🧑 👩 👨🏼",
    "🧑‍🎄": "🧑‍🎄 🎅 🤶🏽",
    "👪": "👪 👨‍👩‍👧‍👦 👩‍👦 🧑‍🧒",  # families
    "🧑‍🤝‍🧑": "🧑‍🤝‍🧑 👫 👬🏻 👩🏻‍🤝‍👨🏿",
    "💏": "💏 👩‍❤️‍💋‍👨 💏🏽",
    "🤝": "🤝 🤝🏻 🫱🏻‍🫲🏿",
    "❤️": "❤️ ❤",  # with and without the variation selector
  }.items(),
)
def test_variants_share_a_concept_group(group, members):
  groups = {splits.concept_group(splits.codepoint_key(member)) for member in members.split(" ")}
  assert groups == {splits.codepoint_key(group)}


@pytest.mark.parametrize("one, other", [("🐈", "🐈‍⬛"), ("❤️", "❤️‍🔥"), ("🧑‍🚀", "🧑‍🚒"), ("🏴‍☠️", "🏳️‍🌈"), ("♀️", "♂️")])
def test_different_things_have_different_concept_groups(one, other):
  assert splits.concept_group(splits.codepoint_key(one)) != splits.concept_group(splits.codepoint_key(other))


def test_codepoint_keys_agree_with_vendor_file_names():
  assert splits.codepoint_key("#️⃣") == splits.normalize_key("0023-FE0F-20E3") == "23-20e3"


def test_country_flags_and_keycaps_are_never_held_out():
  for emoji in catalogue():
    if emoji.subgroup in ("country-flag", "subdivision-flag", "keycap"):
      assert splits.is_country_flag(emoji.key) or splits.is_keycap(emoji.key)
      assert not splits.is_held_out(emoji.concept_group)


def test_catalogue_and_split_have_the_documented_sizes():
  emoji = catalogue()
  base = [item for item in emoji if not splits.has_skin_tone(item.key)]
  groups = {item.concept_group for item in emoji}
  held_out = {group for group in groups if splits.is_held_out(group)}
  assert (len(emoji), len(base), len(groups)) == (3944, 1914, 1695)
  assert sum(item.group != "flags" for item in base) == 1644
  assert len(held_out) == 205 and 0.10 <= len(held_out) / len(groups) <= 0.15
  assert sum(item.concept_group in held_out for item in base) == 232


def test_the_split_never_changes():
  held_out = sorted({item.concept_group for item in catalogue() if splits.is_held_out(item.concept_group)})
  assert hashlib.sha256(" ".join(held_out).encode()).hexdigest()[:16] == "aa48d9e9e055ba38"


def test_concept_numbers_tell_emoji_apart_but_not_skin_tones():
  emoji = catalogue()
  assert len({item.concept for item in emoji}) == len({splits.base_key(item.key) for item in emoji})
  by_text = {item.text: item for item in emoji}
  assert by_text["👋"].concept == by_text["👋🏿"].concept != by_text["🤚"].concept


def test_every_emoji_has_a_name_in_every_language_a_group_and_a_subgroup():
  for emoji in catalogue():
    assert emoji.group and emoji.subgroup
    for kind in ("name", *LANGUAGES):
      assert len(emoji.captions[kind]) == 1 and emoji.captions[kind][0].strip()


def test_english_names_of_base_emoji_are_unique():
  names = [item.captions["name"][0] for item in catalogue() if not splits.has_skin_tone(item.key)]
  assert len(set(names)) == len(names)
