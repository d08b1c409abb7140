"""Hostile requests for scripts/benchmarks/serve.py: bombs, lying sizes, wrong types, broken HTTP, slow clients.

Some kinds have an answer that is known: `EXPECTED`.
"""

import asyncio
import base64
import io
import json
import random
import zlib

from PIL import Image
from serve_client import Answer, Connection

EXPECTED = {"too large": {413}, "slow headers": {408}, "trailers": {200, 404}}
"""The only statuses of some kinds."""
PATHS = ("/embed/image", "/embed/text", "/classify", "/search", "/caption", "/answer", "/attention")


def png(side: int = 8) -> bytes:
  data = io.BytesIO()
  Image.new("RGB", (side, side), (200, 30, 90)).save(data, "PNG")
  return data.getvalue()


def bomb(chance: random.Random) -> bytes:
  """An image whose header claims more pixels than there are: PNG, GIF, BMP or a flat PNG that is really as large."""
  side = chance.choice((5_000, 30_000, 65_500))
  kind = chance.randrange(4)
  if kind == 0:
    data = bytearray(png())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)
  if kind == 1:
    return (
      b"GIF89a" + side.to_bytes(2, "little") * 2 + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(9) + b"\x02\x02\x44\x01\0;"
    )
  if kind == 2:
    return b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + side.to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24)
  raw = zlib.compress(bytes(2_000_000))  # compressed a thousandfold, in a chunk that inflates beyond the header's size
  chunk = b"iCCP" + b"x\0\0" + raw
  data = png()
  return data[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[33:]


def value(chance: random.Random, depth: int = 0) -> object:
  """A JSON value of any type."""
  kinds = [None, True, -1, 1e308, 10**30, "", "a", "\x00", "é" * 50, "a" * 3000, base64.b64encode(png()).decode()]
  kind = chance.randrange(len(kinds) + 2)
  if kind < len(kinds) or depth > 3:
    return kinds[kind % len(kinds)]
  if kind == len(kinds):
    return [value(chance, depth + 1) for _ in range(chance.randrange(5))]
  return {
    chance.choice(("images", "texts", "x", "labels")): value(chance, depth + 1) for _ in range(chance.randrange(4))
  }


def wrong_types(chance: random.Random) -> bytes:
  names = ("images", "texts", "labels", "template", "text", "image", "count", "questions", "extra")
  return json.dumps({name: value(chance) for name in chance.sample(names, chance.randrange(5))}).encode()


def mutated(chance: random.Random) -> bytes:
  data = bytearray(
    chance.choice((png(), png(300), b'{"texts": ["a"]}', b'{"images": ["' + base64.b64encode(png()) + b'"]}'))
  )
  for _ in range(chance.randrange(1, 20)):
    data[chance.randrange(len(data))] = chance.randrange(256)
  return bytes(data[: chance.randrange(len(data) + 1)]) if chance.random() < 0.3 else bytes(data)


def images(chance: random.Random, data: bytes) -> bytes:
  many = [base64.b64encode(data).decode()] * chance.choice((1, 1, 3))
  return json.dumps({"images": many, **({"labels": ["a", "b"]} if chance.random() < 0.3 else {})}).encode()


async def attack(port: int, chance: random.Random) -> tuple[str, Answer]:
  """(kind of attack, answer)."""
  connection, path = Connection(port), chance.choice(PATHS)
  kind = chance.choice(
    ("bomb", "bomb", "types", "types", "mutated", "mutated", "lying", "chunks", "http", "too large", "deep", "slow")
    + (("trailers",) if chance.random() < 0.5 else ("slow headers",) if chance.random() < 0.1 else ())
  )
  try:
    return kind, await _attack(connection, kind, path, chance)
  finally:
    connection.close()


async def _attack(connection: Connection, kind: str, path: str, chance: random.Random) -> Answer:
  head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: "
  match kind:
    case "bomb" if chance.random() < 0.5:
      return await connection.ask(path, images(chance, bomb(chance)))
    case "bomb":
      return await connection.ask(path, bomb(chance), "image/png")
    case "types":
      return await connection.ask(path, wrong_types(chance))
    case "mutated":
      return await connection.ask(
        path, mutated(chance), chance.choice(("application/json", "image/png", "text/plain", ""))
      )
    case "deep":
      return await connection.ask(path, b"[" * 100_000)
    case "too large":
      return await connection.ask(path, b"[" * chance.choice((9_000_000, 20_000_000)))
    case "trailers":
      lines = b"".join(b"x%d: %d\r\n" % (number, number) for number in range(2_000))
      first = "POST /embed/text HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-type: application/json"
      return await connection.send(f"{first}\r\n\r\n10\r\n".encode() + b'{"texts": ["a"]}\r\n0\r\n' + lines + b"\r\n")
    case "slow headers":
      return await connection.send(head.encode())  # and nothing more
    case "lying":
      size = chance.choice(("0", "5", "999999999", "9" * 30, "-1", "x", "1, 2"))
      return await connection.send(f"{head}image/png\r\ncontent-length: {size}\r\n\r\n".encode() + png(), finish=True)
    case "chunks":
      size = chance.choice(("5", "ffffffff", "-5", "zz"))
      lines = f"{head}application/json\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\n"
      return await connection.send(lines.encode() + b'{"texts": ["a"]}\r\n0\r\n\r\n', finish=True)
    case "http":
      lines = (
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 200,
        b"POST",
        f"{head}{'x' * 90_000}\r\n\r\n".encode(),
        b"GET /%ff%00 HTTP/1.1\r\n\r\n",
      )
      return await connection.send(chance.choice(lines), finish=True)
  body = b'{"texts": ["slow"]}'  # a slow client: its body in two halves, or never whole
  first = f"{head}application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body[:9]
  if chance.random() < 0.5:
    return await connection.send(first, finish=True)
  sending = asyncio.create_task(connection.send(first))
  await asyncio.sleep(chance.random())
  with_rest = connection._writer
  if with_rest is not None:
    with_rest.write(body[9:])
  return await sending
