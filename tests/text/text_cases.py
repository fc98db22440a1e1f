"""Varied texts, the same in every run, for whatever reads text.

Code points are those that this Python's unicodedata knows: Unicode 14 for Python 3.11. Libraries of
different Unicode versions disagree on the category of newer ones, and so on how to cut words there.
"""

from __future__ import annotations

import random
import sys
import unicodedata

WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had "
    "an they which one you were all her she there would their we him been has when who will no more if "
    "out so said what up its about than into them can only other time new some could these two may "
    "first then do any like my now over such our man me even most made after also did many off before "
    "must well back through years much where your way naïve café Zürich façade jalapeño Ångström"
).split()
CONTRACTIONS = "I'm we're they'd he'LL SHE'S isn'T you'Ve it's' 'tis O'Neill rock'n'roll '\u017f I'\u017f 'M ’s".split()
CODE = (
    "def f(x):\n    return x ** 2  # squared\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n}\n\n",
    '{"key": [1, 2.5e-3, null, true], "other": "\\u00e9\\n"}',
    "<div class=\"a\">x&nbsp;y</div>\r\n<!-- c -->",
    "SELECT * FROM t WHERE id IN (1, 22, 333);--x",
    "#include <vector>\nstd::vector<int> v{1,2,3};",
    "https://example.com/a/b?c=d&e=%20f#g user@host.org ../../path\\to\\file",
    "$x = \"${a[0]}\"; echo `ls -la | grep '^d'` && exit 1",
)
CJK = "今天天气很好我们去公园日本語のテキストとカタカナ한국어문장입니다「」，。！？ｆｕｌｌ　ｗｉｄｔｈ"
EMOJI = ("😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️", "1️⃣", "🧑🏿‍🚀", "☃", "🫠")
SCRIPTS = "Привет мир Ελληνικά العربية ١٢٣ עברית हिन्दी ๑๒๓ ไทย தமிழ் ქართული አማርኛ Tiếng Việt İstanbul ıI ǅ ŉ".split()
DIGITS = ("0", "42", "1234567890", "3.14159", "1,000,000", "٣٤٥", "Ⅷ", "½", "²³", "①②", "𝟘𝟙", "0x1F", "１２")
SPACES = (" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", " \t ", "\u00a0", "\u3000", "\u2003", "\u0085",
          "\u180e", "\u200b", "\u2028", "\ufeff", "\x0b", "\x0c", "\x1c", " \n ", "      ", "\n    ")
MARKS = ("e\u0301", "a\u0323\u0302", "\u1100\u1161\u11a8", "n\u0303", "\u0301", "q\u0307\u0323", "\u0344",
         "\u212b", "\u2126", "\ufb01", "o\u0308\u0301", "\u0b47\u0b56", "\u1e9b\u0323", "\U0001d15e",
         "\uac00\u11a8", "\uf900", "\u0958")
CONTROLS = tuple(chr(c) for c in (*range(1, 32), 127, 0x80, 0x9f)) + ("\0", "\u200d", "\u202e", "\ufffd")
BROKEN = (b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\x80\x80", b"\xed\xa0\x80", b"\xc0\xaf",
          b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\xf8\x88", b"\xf0\x80", b"\xe2\x28\xa1", b"\xc3\xc3\xa9")

# Characters whose combining class or decomposition came with Unicode 10 to 14. `tokenizers` 0.23
# normalizes by an older version and takes them for plain characters; Nibble follows Unicode 14.
NORMALIZED_SINCE_UNICODE_10 = frozenset(
    c
    for pair in (
        "7FD 898-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1ACE 1DF6-1DFA 32FF A7F2-A7F4 A82C AB69 "
        "10781-10785 10787-107B0 107B2-107BA 10D24-10D27 10EAB-10EAC 10F46-10F50 10F82-10F85 11070 "
        "1133B 1145E 11839-1183A 11938 1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42 11D44-11D45 "
        "11D97 16FF0-16FF1 1E130-1E136 1E2AE 1E2EC-1E2EF 1F16C 1FBF0-1FBF9"
    ).split()
    for c in range(int(pair.split("-")[0], 16), int(pair.split("-")[-1], 16) + 1)
)


def _assigned(normalizes: bool) -> list[int]:
    """Every assigned code point but surrogates and private use."""
    skipped = {"Cn", "Cs", "Co"}
    chars = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) not in skipped]
    return [c for c in chars if not (normalizes and c in NORMALIZED_SINCE_UNICODE_10)]


def _planes(assigned: list[int]) -> list[list[int]]:
    planes: dict[int, list[int]] = {}
    for c in assigned:
        planes.setdefault(c >> 16, []).append(c)
    return [*planes.values(), [0xE000, 0xF8FF, 0xF0000, 0x10FFFD]]


def every_code_point(normalizes: bool) -> list[bytes]:
    """Each assigned code point between letters and digits, and in a row with its neighbours.

    `normalizes`: for readers that normalize, without NORMALIZED_SINCE_UNICODE_10.
    """
    chars = [chr(c) for c in _assigned(normalizes)]
    rows = ["".join(chars[i : i + 16]) for i in range(0, len(chars), 16)]
    alone = ["".join(f"a{c} {c}1" for c in chars[i : i + 16]) for i in range(0, len(chars), 16)]
    return [s.encode() for s in rows + alone]


def texts(count: int, special: list[str], seed: int = 1) -> list[bytes]:
    """`count` texts, mixed from the lists above, some with special tokens or broken UTF-8 inside."""
    rng = random.Random(seed)
    planes = _planes(_assigned(normalizes=True))

    def words() -> str:
        style = rng.choice((str, str, str.title, str.upper))
        return " ".join(style(rng.choice(WORDS)) for _ in range(rng.randint(1, 12)))

    def from_plane() -> str:
        plane = rng.choice(planes)
        return "".join(chr(rng.choice(plane)) for _ in range(rng.randint(1, 6)))

    def cjk() -> str:
        start = rng.randrange(len(CJK))
        return CJK[start : start + rng.randint(1, 12)]

    makers = (
        words, words, from_plane, cjk,
        lambda: rng.choice(CONTRACTIONS), lambda: rng.choice(CODE), lambda: rng.choice(EMOJI),
        lambda: rng.choice(SCRIPTS), lambda: rng.choice(DIGITS), lambda: rng.choice(SPACES),
        lambda: rng.choice(SPACES) * rng.randint(1, 9), lambda: rng.choice(MARKS),
        lambda: rng.choice(CONTROLS), lambda: rng.choice("-=_*#/!?.,;:'\"()[]{}") * rng.randint(1, 20),
        lambda: rng.choice(special) if special else "",
        lambda: rng.choice(special)[: rng.randint(1, 9)] if special else "",
        lambda: "".join(rng.choice("aeioulnrst") for _ in range(rng.randint(1, 60))),
        lambda: str(rng.randrange(10 ** rng.randint(1, 12))),
    )
    out = [b"", b" ", b"\n", b"a" * 3000, b" " * 3000, b"ab" * 2000 + b"\n", "é".encode() * 1500]
    out += [s.encode() for s in special]
    while len(out) < count:
        parts = [rng.choice(makers)().encode() for _ in range(rng.randint(1, 8))]
        if rng.random() < 0.15:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice(BROKEN))
        out.append(rng.choice((b"", b"", b" ")).join(parts))
    return out
