"""Small damage and large lies: bytes near valid ones, and JSON with values that nobody expects."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

LONGEST = 2**20  # bytes of a mutated file

NUMBERS = [
    0,
    -1,
    1,
    2**31,
    2**32,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    10**400,
    1e308,
    -0.0,
    0.5,
    float("nan"),
    float("inf"),
]
WORDS = ["", "x", "/etc/passwd", "../x", "a\0b", "\x1b[31m", "\u202e", "\ud800", "NaN", "1", "x" * 2000, "\U0001f426"]
VALUES: list[Any] = [*NUMBERS, *WORDS, None, True, False, [], {}, [[]], {"": {}}, [0] * 100]
PIECES = [
    *(
        b"\0",
        b"\xff",
        b"\n",
        b"\r\n",
        b" ",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"=",
        b".",
        b":",
        b"\\",
        b"/",
        b"../",
    ),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b[2J", b"\\u0000", b"\\ud800", b"e999", b"-", b"nan", b"inf", b"0x", b"#"),
    *(b"9" * 30, b"9" * 5000, b"[" * 3000, b"{" * 3000, b"(" * 3000, b'{"a":' * 3000, b"a." * 3000),
    *((2**bits - 1).to_bytes(bits // 8, end) for bits in (16, 32, 64) for end in ("little", "big")),
    *((2**bits).to_bytes(8, "little") for bits in (16, 24, 31, 40, 62)),
]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed after some random changes, each of which may build on the last."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        content = _changed(draw, content, seeds)[:LONGEST]
    return content


def _changed(draw: st.DrawFn, content: bytes, seeds: list[bytes]) -> bytes:
    size = len(content)
    begin = draw(st.integers(0, size))
    end = min(size, begin + draw(st.one_of(st.integers(1, 8), st.integers(1, max(1, size)))))
    before, part, after = content[:begin], content[begin:end], content[end:]
    match draw(
        st.sampled_from(["flip", "insert", "replace", "delete", "truncate", "repeat", "splice", "digits", "swap"])
    ):
        case "flip":
            flips = draw(st.binary(min_size=1, max_size=4))
            return before + bytes(a ^ b for a, b in zip(part, flips, strict=False)) + part[len(flips) :] + after
        case "insert":
            return before + draw(st.sampled_from(PIECES) | st.binary(max_size=8)) + content[begin:]
        case "replace":
            piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
            return before + piece + content[begin + len(piece) :]
        case "delete":
            return before + after
        case "truncate":
            return before
        case "repeat":
            return before + part * draw(st.sampled_from([2, 3, 100, 1000])) + after
        case "splice":
            other = draw(st.sampled_from(seeds))
            return before + other[draw(st.integers(0, len(other))) :]
        case "digits":
            number = str(draw(st.sampled_from(NUMBERS))).encode()
            digits = [index for index in range(begin, size) if content[index : index + 1].isdigit()][:1]
            return content if not digits else content[: digits[0]] + number + content[digits[0] + 1 :]
        case _:
            return after + part + before


@st.composite
def retold(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A JSON seed in which some values were replaced, removed, doubled or added."""
    content = json.loads(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        content = _told(draw, content)
    return json.dumps(content, indent=1).encode()


def _told(draw: st.DrawFn, content: Any) -> Any:
    values = [((), content), *_values(content)]
    path, _ = draw(st.sampled_from(values))
    if not path:
        return draw(st.sampled_from([content, content, content, [content], {"a": content}]))
    parent = content
    for step in path[:-1]:
        parent = parent[step]
    match draw(st.sampled_from(["replace", "replace", "remove", "double", "add", "move"])):
        case "replace":
            parent[path[-1]] = draw(st.sampled_from(VALUES))
        case "remove":
            del parent[path[-1]]
        case "double" if isinstance(parent, list):
            parent *= draw(st.sampled_from([2, 50]))
        case "add" if isinstance(parent, dict):
            parent[draw(st.sampled_from(WORDS))] = draw(st.sampled_from(VALUES))
        case _:
            parent[path[-1]] = deepcopy(draw(st.sampled_from(values))[1])
    return json.loads(json.dumps(content))  # so that no two parts, and no two rounds, share what is changed next


def _values(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    values = []
    for step, value in list(inside)[:50]:
        values += [((*path, step), value), *_values(value, (*path, step))]
    return values
