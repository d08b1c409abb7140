"""MP4, WebM and MKV by PyAV. Only the frames that are asked for, and those that they depend on, are decoded."""

import bisect
import importlib
import io
import itertools
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.errors import DataError
from mmjax.data.video.headers import truncated
from mmjax.data.video.limits import Limits

_EXACT = 0.01
"""Largest difference of a display matrix from a turn or a mirror, as a part of its scale."""


def library(record: str) -> Any:
  """Import PyAV. Raises DataError, which names the record and the extra, if it is not installed."""
  try:
    return importlib.import_module("av")
  except (ImportError, OSError) as error:
    raise DataError(
      f"{record}: MP4, WebM and MKV need the package av ({error}). Install it: pip install 'mmjax[video]'."
    ) from error


class Container:
  """A video file. Its packets, which hold encoded frames, are read at once, and decoded on demand.

  A packet says when its frame is shown and whether it is a keyframe. So the number of frames is not that which the
  header claims, and reading a frame begins at the last keyframe before it.

  Args:
    data: the file.
    record: name of the record in error messages.
    limits: limits that are checked before frames are decoded.

  Attributes:
    times: times of the frames in seconds, ascending from 0.
    seconds: duration.

  Raises:
    DataError: the file cannot be read, has no video, is truncated, exceeds a limit, or needs a codec that the installed
      FFmpeg does not have.
  """

  def __init__(self, data: bytes, record: str, limits: Limits):
    self._av, self._record, self._limits = library(record), record, limits
    # The limit holds for the decoder, too: a header of the codec may contradict that of the file.
    options = {"max_pixels": str(limits.max_pixels)}
    try:
      self._file = self._av.open(io.BytesIO(data), options=options)
    except Exception as error:  # PyAV raises many types of exceptions
      raise self._corrupt(error) from error
    try:
      self._stream = self._video()
      self._packets = self._read_packets()
    except DataError:
      self._file.close()
      raise
    except Exception as error:
      self._file.close()
      raise self._corrupt(error) from error
    shown = sorted((packet.pts, packet.duration or 0) for packet in self._packets)
    for before, after in itertools.pairwise(shown):
      if before[0] == after[0]:
        self._file.close()
        raise DataError(f"{record}: two frames have the same time, as where files were joined. Convert it again.")
    tick, first = float(self._stream.time_base), shown[0][0]
    self._shown = [pts for pts, _ in shown]
    times = np.array([(pts - first) * tick for pts, _ in shown])
    last = shown[-1][1] * tick or (times[-1] / (len(times) - 1) if len(times) > 1 else 0.0)
    kept = int(np.searchsorted(times, limits.max_seconds))
    kept = max(1, min(kept, limits.max_frames)) if self._cropped else len(times)
    self.times = times[:kept]
    self.seconds = float(times[kept] if kept < len(times) else times[-1] + last)
    keys = [(packet.pts, place) for place, packet in enumerate(self._packets) if packet.is_keyframe]
    self._keys = sorted(keys) or [(self._shown[0], 0)]

  def __enter__(self) -> "Container":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def read(self, places: Sequence[int]) -> Iterator[Image.Image]:
    """Decode frames, one at a time, turned upright and with square pixels, in RGB.

    Args:
      places: numbers of the frames, ascending. A number may be there twice.
    Raises: DataError: a frame is corrupt.
    """
    frames: Iterator[Any] = iter(())
    begin, frame, image, last = -1, None, None, None
    wanted = {self._shown[place] for place in places}
    for place in places:
      if place != last:
        target = self._shown[place]
        key = self._keys[max(0, bisect.bisect_right(self._keys, target, key=lambda each: each[0]) - 1)][1]
        if key > begin:  # frames between are not decoded
          begin, frames, frame = key, self._decoded(key, wanted), None
        while frame is None or frame.pts is None or frame.pts < target:
          following = next(frames, None)
          if following is None:
            break
          frame = following
        image, last = self._image(self._of_place(frame, place)), place
      assert image is not None
      yield image

  def _video(self) -> Any:
    """The stream of the frames, with one thread: workers are processes."""
    streams = [each for each in self._file.streams.video if "attached_pic" not in str(each.disposition).lower()]
    if not streams:
      raise DataError(f"{self._record}: has no video, only {len(self._file.streams)} other streams. Remove it.")
    stream = streams[0]
    context = stream.codec_context
    if context is None:
      raise DataError(
        f"{self._record}: the installed FFmpeg (of the package av {self._av.__version__}) has no decoder for its "
        "codec. Convert it to H.264 or VP9."
      )
    if not context.width or not context.height:  # the decoder refused it while the file was opened
      raise DataError(
        f"{self._record}: the size of its frames cannot be read, or is over the limit of {self._limits.max_pixels} "
        "pixels, whatever its header claims. Replace it, or raise max_pixels of the column Video."
      )
    self._limits.check_size(context.width, context.height, self._record)
    context.options = {"max_pixels": str(self._limits.max_pixels)}
    context.thread_type, context.thread_count = "NONE", 1
    return stream

  def _read_packets(self) -> list[Any]:
    """The packets in the order of decoding, up to the limits."""
    packets: list[Any] = []
    limits, self._cropped = self._limits, False
    tick = float(self._stream.time_base)
    for packet in self._file.demux(self._stream):
      if not packet.size or packet.is_discard:
        continue
      packet.pts = packet.dts if packet.pts is None else packet.pts
      if packet.pts is None:
        raise DataError(f"{self._record}: a frame has no time. Convert it again, to MP4 or WebM.")
      seconds = (packet.pts - packets[0].pts) * tick if packets else 0.0
      if len(packets) >= limits.max_frames or seconds >= limits.max_seconds:
        if limits.longer == "refuse":
          raise limits.too_long(self._record, f"more than {len(packets)} frames, or {seconds:.6g} s")
        self._cropped = True
        # Frames before the limit may be stored after one behind it: no codec moves a frame by more than 16 places.
        if len(packets) >= limits.max_frames + 16 or seconds > limits.max_seconds + 16:
          break
      packets.append(packet)
    claimed = self._stream.frames
    if not packets:
      raise DataError(f"{self._record}: has no frames. Replace it or remove it.")
    if not self._cropped and claimed > len(packets):
      raise truncated(self._record, f"its header claims {claimed} frames, and {len(packets)} are there")
    return packets

  def _decoded(self, start: int, wanted: Collection[int]) -> Iterator[Any]:
    """Decode frames from a packet on: those with the wanted times, and all that another frame may depend on."""
    context = self._stream.codec_context
    try:
      context.flush_buffers()
      for packet in self._packets[start:]:
        context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        yield from context.decode(packet)
      yield from context.decode(None)
    except Exception as error:
      raise self._corrupt(error) from error

  def _of_place(self, frame: Any, place: int) -> Any:
    """Check that a decoded frame is that of a place, or of a neighbour: a packet may hold a frame that is not shown."""
    low, high = self._shown[max(place - 1, 0)], self._shown[min(place + 1, len(self._shown) - 1)]
    if frame is None or frame.pts is None or not low <= frame.pts <= high or frame.is_corrupt:
      raise DataError(
        f"{self._record}: the frame at {self.times[place]:.3f} s cannot be decoded: the file is corrupt. Replace it or "
        "remove it."
      )
    return frame

  def _image(self, frame: Any) -> Image.Image:
    ratio = self._stream.sample_aspect_ratio
    width = max(1, round(frame.width * ratio)) if ratio and ratio.denominator and ratio > 0 else frame.width
    self._limits.check_size(width, frame.height, self._record)
    try:
      pixels = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    except Exception as error:
      raise self._corrupt(error) from error
    return Image.fromarray(self._upright(pixels, frame))

  def _upright(self, pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Turn and mirror pixels by the display matrix (a, b, u, c, d, v, x, y, w): x' = a x + c y, y' = b x + d y."""
    side = frame.side_data.get("DISPLAYMATRIX")
    if side is None:
      return pixels
    a, b, _, c, d, *_ = (value / 65536 for value in struct.unpack("=9i", bytes(side)))
    size = max(map(abs, (a, b, c, d)))
    kept, swapped = (abs(abs(p) - size) + abs(abs(q) - size) for p, q in ((a, d), (b, c)))
    if not size or min(kept + abs(b) + abs(c), swapped + abs(a) + abs(d)) > _EXACT * size:
      raise DataError(
        f"{self._record}: its display matrix ({a:g}, {b:g}, {c:g}, {d:g}) is neither a turn by 90 degrees nor a "
        "mirror. Convert it again with ffmpeg, which turns the frames."
      )
    x, y = (c, b) if abs(b) > abs(a) else (a, d)
    pixels = pixels.swapaxes(0, 1) if abs(b) > abs(a) else pixels
    return np.ascontiguousarray(pixels[:: 1 if y > 0 else -1, :: 1 if x > 0 else -1])

  def _corrupt(self, error: Exception) -> DataError:
    if isinstance(error, DataError):
      return error
    reason = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
    return DataError(
      f"{self._record}: cannot be decoded as a video ({reason}): it is corrupt, or needs a codec that the installed "
      f"FFmpeg (of the package av {self._av.__version__}) does not have. Replace it, or convert it to H.264 or VP9."
    )
