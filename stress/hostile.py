"""Hostile and odd input drawn from a seed: words, literals, bytes, JSON values, and what bends good input out of shape.

Every function takes its randomness from `draw`, so that a case is drawn again from its seed and number alone.
"""

import json
import os
import random
import re
from typing import Any

WORDS = (
    "", " ", "\n", "\t", "-", "--", "--out", "-x", ".", "*", "**", "[", "[bold]", "a\nb", "a\r\x1b[31mb", "%s{0}",
    "$(touch x)", "`touch x`", "é", "名前", "👩‍👩‍👧", "\u202eevil", "\u2028", "\ufeff", "İ", "ß" * 40, "n" * 300,
    "n" * 5000, "'", '"', "\\", "\\d", "<script>alert(1)</script>", "nan", "None", "text", "notes.txt", "rows.jsonl",
    "model", "/dev/null", "/proc/nowhere", os.fsdecode(b"\xff\xfe"), os.fsdecode(b"caf\xe9"),
)  # fmt: skip
NUMBERS = (
    "0", "-1", "1", "2", "3", "8", "64", "300", "3000", "6000", "100000", "2000000000", "2147483648", "9" * 30,
    "9" * 5000, "1e9", "1e400", "-0.0", "0.5", "nan", "inf", "1_000", "٣", "0x10", " 5", "", "x",
)  # fmt: skip
LITERALS = (
    *NUMBERS, "10**9", "0x" + "f" * 5000, "-0x" + "f" * 5000, "1e-320", "2**31", "True", "None", "'x'", "''", "b'x'",
    "1j", "...", "[1]", "(1, 2)", "()", "{}", "{1: 2}", "{[]}", "'\\d'", "'\\ud800'", "f'{1}'", "*a", "1 if 1else 2",
    "x:=1", "lambda: 1", "-True", "+1", "(" * 300, "((1))" * 40, "-" * 500 + "1", "[" * 90 + "]" * 90,
    "'" + "n" * 5000 + "'", "__import__('os').system('touch x')",
)  # fmt: skip
BYTES = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"'", b",", b"\n", b"\r", b"\r\n", b"{",
    b"}", b"[" * 5000, b"\\ud800", b"\\u0000", b"NaN", b"Infinity", b"1e999", b"9" * 5000, b"null", b"\x80\x04",
    b"PK\x03\x04", b"%PDF-", b"PAR1", b"\x1b[31m", b"{}", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\0" * 8,
    "\u202e👩‍👩‍👧".encode(), b"x" * 200_000,
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308, 5e-324, 1e-300,
    float("nan"), float("inf"), [], {}, [[]], ["x", "x"], {"x": 1}, [1, 0], "ema", "attention(heads=2)",
    "seqboat(memory=1000000000000)", "\ud800", "a\0b", "x" * 10_000, "done", "failed", "lower", "text", *WORDS[:40],
)  # fmt: skip


def bent(draw: random.Random, text: str, pool: tuple[str, ...] = WORDS) -> str:
    """`text` with a few letters lost, doubled, swapped or put in between."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        a = draw.randrange(len(text) + 1)
        b = min(len(text), a + draw.choice((1, 1, 3, 20)))
        text = draw.choice((
            text[:a] + text[b:],
            text[:b] + text[a:],
            text[:a] + draw.choice(pool) + text[a:],
            text[:a] + draw.choice("()[]{},=.:'\"\\#\n _-+*0123456789aA\u0661") + text[b:],
        ))  # fmt: skip
    return text


def broken(draw: random.Random, content: bytes) -> bytes:
    """`content` with bits flipped, stretches lost, doubled, overwritten or put in between, or its end cut off."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        a = draw.randrange(len(content) + 1)
        b = min(len(content), a + draw.choice((1, 1, 4, 40, 400)))
        head, piece, tail = content[:a], content[a:b], content[b:]
        content = draw.choice((
            head + bytes(byte ^ 1 << draw.randrange(8) for byte in piece[:1]) + piece[1:] + tail,
            head + tail,
            head + piece * 2 + tail,
            head + draw.choice(BYTES) + piece + tail,
            head + draw.choice(BYTES) + tail,
            head + draw.randbytes(len(piece)) + tail,
            head,
        ))  # fmt: skip
    return content


def warped(draw: random.Random, value: Any, most: int = 2000) -> Any:
    """A copy of a JSON value with one place in it exchanged, lost, doubled (up to `most` times) or renamed."""
    if isinstance(value, dict | list) and value and draw.random() < 0.93:
        copy: Any = value.copy()
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        match draw.randrange(12):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[draw.choice(WORDS)] = copy.pop(key) if draw.random() < 0.5 else copy[key]
            case 1:
                copy += [copy[key]] * draw.choice((1, 3, most))
            case _:
                copy[key] = warped(draw, value[key], most)
        return copy
    return draw.choice(VALUES)


def read_again(value: Any) -> Any:
    """What a JSON file gives back: tuples as lists, keys as text."""
    return json.loads(json.dumps(value))


def spec(draw: random.Random, takes: dict[str, list[str]]) -> str:
    """A contestant or a task such as `ema(dims=4)`, well written or not; `takes` has the arguments of every part."""
    name = draw.choice([*takes, *takes, *takes, "text", "recal", "_contract", "os", "../ema", ""])
    keys = draw.sample(known := [*takes.get(name, ()), "d_model", "x"], min(len(known), draw.choice((0, 1, 1, 2, 3))))
    inside = ", ".join(f"{key}={draw.choice(LITERALS if draw.random() < 0.4 else NUMBERS[:8])}" for key in keys)
    text = f"{name}({inside})" if inside else name
    return bent(draw, text, (*WORDS, *LITERALS)) if draw.random() < 0.3 else text


def inside(word: str) -> str:
    """`word` as one that names no place outside the current folder, which a command may write to when it is told to."""
    word = word.replace("..", "_.").replace("\0", "_")
    return word if word.startswith(("/dev/null", "/proc/nowhere")) else re.sub(r"(^|[=\s])[/~]+", r"\1", word)
