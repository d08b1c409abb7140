"""Reading of videos: every format, only what is needed, and what is refused."""

import io
import itertools
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataError
from mmjax.data.video import container
from mmjax.data.video.animation import frames_of_folder
from mmjax.data.video.limits import Limits
from mmjax.data.video.reading import frames_alike, open_video
from mmjax.data.video.sampling import sampled
from tests.data.videos import animated, clip, encoded, number

CLIP = clip()
FILES = {
  "mp4": lambda: encoded(CLIP),
  "webm": lambda: encoded(CLIP, "webm", "libvpx-vp9"),
  "vp8": lambda: encoded(CLIP, "webm", "libvpx"),
  "mkv": lambda: encoded(CLIP, "matroska"),
  "gif": lambda: animated(CLIP, "GIF"),
  "webp": lambda: animated(CLIP),
}
WANTED = [0, 3, 3, 9, 10, 27, 39]


def folder_of(path):
  path.mkdir()
  for place, frame in enumerate(CLIP):
    Image.fromarray(frame).save(path / f"frame{place}.png")
  return path


def refused(video, match: str, **limits) -> None:
  with (
    pytest.raises(DataError, match=f"^clip 7.*{match}"),
    open_video(video, record="clip 7", limits=Limits(**limits)) as v,
  ):
    list(frames_alike(v.read(range(len(v.times))), "clip 7"))


@pytest.mark.parametrize("form", FILES)
def test_frames_and_times_of_a_file(form, tmp_path):
  data = FILES[form]()
  (tmp_path / "clip").write_bytes(data)  # the content says what it is, and not the name
  for video in (data, tmp_path / "clip"):
    with open_video(video) as opened:
      np.testing.assert_allclose(opened.times, np.arange(40) / 25, atol=1e-3)
      assert opened.seconds == pytest.approx(1.6)
      assert [number(frame) for frame in opened.read(WANTED)] == WANTED


def test_frames_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
  folder = folder_of(tmp_path / "frames")
  (folder / ".hidden").touch()
  for video in (folder, str(folder), CLIP, list(CLIP)):
    with open_video(video, frame_rate=10) as opened:
      assert opened.seconds == pytest.approx(4.0) and [number(frame) for frame in opened.read(WANTED)] == WANTED
  assert [path.name for path in frames_of_folder(folder, "r")][9:11] == ["frame9.png", "frame10.png"]
  (folder / "Thumbs.db").touch()
  refused(folder, "Thumbs.db is not a frame")


def test_only_frames_that_are_needed_are_decoded(monkeypatch):
  """Groups of ten frames: frame 23 needs 20 to 23, and 27 the four after these; 38 begins at 30."""
  decoded, original = [], container.Container._decoded

  def counted(self, start, wanted):
    for frame in original(self, start, wanted):
      decoded.append(number(frame.to_ndarray(format="rgb24")))
      yield frame

  monkeypatch.setattr(container.Container, "_decoded", counted)
  with open_video(encoded(CLIP, "webm", "libvpx-vp9")) as video:
    assert [number(frame) for frame in video.read([23, 27, 38])] == [23, 27, 38]
  assert decoded == [*range(20, 28), *range(30, 39)]
  decoded.clear()
  with open_video(
    encoded(clip(height=48, width=64), gop=40)
  ) as video:  # H.264 with frames on which no other one depends
    assert [number(frame) for frame in video.read([5, 21])] == [5, 21]
  assert {5, 21} <= set(decoded) and len(decoded) <= 16


def test_frames_equal_those_of_decoding_everything():
  import av

  data = encoded(CLIP, "mp4", "mpeg4")
  with av.open(io.BytesIO(data)) as file:
    everything = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
  with open_video(data) as video:
    for place, frame in zip(WANTED, video.read(WANTED), strict=True):
      np.testing.assert_array_equal(frame, everything[place])


@pytest.mark.parametrize(("angle", "corner"), [(90, (-2, 2)), (180, (-2, -2)), (-90, (2, -2))])
def test_frames_are_turned_upright(angle, corner):
  """The angle of a display matrix is counter-clockwise, and a telephone held upright writes -90."""
  with open_video(encoded(CLIP, rotated=angle)) as video:
    frame = np.asarray(next(iter(video.read([1]))))
  assert frame.shape[:2] == ((24, 32) if angle == 180 else (32, 24))
  bright = [(y, x) for y, x in itertools.product((2, -2), (2, -2)) if frame[y, x, 0] > 200]
  assert bright == [corner]


def with_matrix(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
  """An MP4 with another display matrix in the header of its track (ISO 14496-12, section 8.3.2)."""
  place = data.index(b"tkhd") + 4 + 40
  values = (round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0, 16384))
  return data[:place] + struct.pack(">9i", *values) + data[place + 36 :]


@pytest.mark.parametrize(
  ("matrix", "shown"),
  [
    ((1, 0, 0, 1), lambda a: a),
    ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    ((1, 0, 0, -1), lambda a: a[::-1]),
    ((-1, 0, 0, -1), lambda a: a[::-1, ::-1]),
    ((0, 1, 1, 0), lambda a: a.swapaxes(0, 1)),
    ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    ((0, -1, 1, 0), lambda a: np.rot90(a)),
    ((0, -1, -1, 0), lambda a: a[::-1, ::-1].swapaxes(0, 1)),
  ],
)
def test_frames_are_mirrored_as_the_display_matrix_says(matrix, shown):
  pixels = clip(2)
  pixels[:, :4, -4:] = 90  # no symmetry
  data = encoded(pixels)
  with open_video(data) as plain, open_video(with_matrix(data, *matrix)) as video:
    stored = np.asarray(next(iter(plain.read([1]))))
    np.testing.assert_array_equal(np.asarray(next(iter(video.read([1])))), shown(stored))


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (2, 0, 0, 1), (1, 0.5, 0, 1)])
def test_other_display_matrices_are_refused(matrix):
  refused(with_matrix(FILES["mp4"](), *matrix), "display matrix .* is neither a turn by 90 degrees nor a mirror")


@pytest.mark.parametrize("form", FILES)
def test_joined_files_are_refused(form):
  data = FILES[form]()
  refused(data + data, rf"a second video begins at byte {len(data)}: files were joined")


def test_a_second_segment_and_times_that_are_there_twice_are_refused():
  data = FILES["mkv"]()
  refused(data + data[data.index(b"\x18\x53\x80\x67") :], "a second video begins at byte")
  twice = data.replace(b"\x81\x00\x28", b"\x81\x00\x50", 1)  # the frame at 40 ms, of track 1
  assert twice != data
  refused(twice, "two frames have the same time")


def test_a_sequence_of_images_is_no_video():
  refused(animated(CLIP[:3], "AVIF"), "is not a video")


@pytest.mark.parametrize("form", FILES)
def test_truncated_files_are_refused(form):
  data = FILES[form]()
  for length in (len(data) - 3, len(data) // 2, 60):
    refused(data[:length], "truncated|cannot be")


def test_corrupt_files_are_refused():
  data = bytearray(FILES["mp4"]())
  start = data.index(b"mdat")
  for place in range(start + 200, start + 1200, 7):
    data[place] ^= 0x55
  refused(bytes(data), "cannot be decoded as a video")
  damaged = bytearray(FILES["gif"]())
  damaged[len(damaged) // 2] ^= 255
  refused(bytes(damaged), "GIF")


def test_limits_are_checked_before_frames_are_decoded(monkeypatch):
  monkeypatch.setattr(container.Container, "_decoded", None)
  for form in ("mp4", "gif"):
    data = FILES[form]()
    refused(data, "limit is 100", max_pixels=100)
    refused(data, "limits are 1 s", max_seconds=1.0, longer="refuse")
    refused(data, "7 frames", max_frames=7, longer="refuse")
    for limits, kept in ((Limits(max_seconds=1.0), 25), (Limits(max_frames=7), 7)):
      with open_video(data, limits=limits) as video:
        assert len(video.times) == kept and video.seconds == pytest.approx(kept / 25)


def test_a_decoder_obeys_the_limit_although_the_header_claims_small_frames():
  data = encoded(clip(2, height=256, width=256), "matroska", "libvpx-vp9")
  lying = data.replace(b"\xb0\x82\x01\x00\xba\x82\x01\x00", b"\xb0\x82\x00\x10\xba\x82\x00\x10")  # 16 x 16
  assert lying != data
  refused(lying, "over the limit of 1000 pixels, whatever its header claims", max_pixels=1000)


def test_counts_of_frames_in_a_header_are_not_believed():
  data = FILES["mp4"]()
  place = data.index(b"stsz") + 12
  claimed = lambda count: data[:place] + count.to_bytes(4, "big") + data[place + 4 :]
  refused(claimed(30), "claims 40 frames, and 30 are there")
  refused(claimed(40_000_000), "frames")


def test_what_is_no_video():
  refused(b"no video at all, but a text", "is not a video; formats are MP4")
  refused(FILES["mp4"]().replace(b"avc1", b"zzz1"), "no decoder for its codec. Convert it")
  refused(_sound(), "has no video, only 1 other")
  refused(np.zeros((0, 4, 4, 3), np.uint8), "has no frames")
  refused(np.zeros((3, 4, 4)), "an array of float64")
  refused(b"GIF89a" + bytes([4, 0, 4, 0, 0, 0, 0]) + b";", "has no frames")
  refused([CLIP[0], CLIP[1][:8]], "32 x 24 and of 32 x 8")
  with pytest.raises(DataError, match="Cannot read .*missing.mp4"):
    open_video("missing.mp4")


def test_the_missing_package_is_named(monkeypatch):
  data = FILES["mp4"]()
  monkeypatch.setitem(sys.modules, "av", None)
  refused(data, r"pip install 'mmjax\[video\]'")


def test_random_frames_lie_in_equal_segments():
  times, found = np.arange(40) / 25, set()
  for seed in range(50):
    places = sampled(times, 1.6, 4, "random", 1.0, np.random.default_rng(seed))
    assert (places // 10 == np.arange(4)).all()
    found |= set(places.tolist())
  assert len(found) > 30  # almost every frame has its turn


def test_frames_by_rate_begin_anywhere():
  times = np.arange(40) / 25
  starts = {sampled(times, 1.6, 4, "rate", 5.0, np.random.default_rng(seed))[0] for seed in range(50)}
  assert starts == set(range(20))  # 4 frames at 5 a second take .8 of the 1.6 s
  assert sampled(times, 1.6, 100, "rate", 5.0, None).tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
  assert sampled(times, 1.6, 4, "rate", 50.0, None).tolist() == [19, 19, 20, 20]  # shown twice


def test_a_frame_that_is_shown_longer_is_taken_more_often():
  with open_video(animated(clip(3), durations=[100, 100, 800])) as video:
    assert video.seconds == pytest.approx(1.0)
    assert sampled(video.times, video.seconds, 2, "uniform", 1.0, None).tolist() == [2, 2]


def _sound() -> bytes:
  import av

  data = io.BytesIO()
  with av.open(data, "w", format="mp4") as file:
    stream = file.add_stream("aac", rate=16000)
    frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    frame.sample_rate = 16000
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    file.mux(stream.encode(frame))
    file.mux(stream.encode())
  return data.getvalue()
