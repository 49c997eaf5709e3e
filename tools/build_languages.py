"""Build src/markovot/data/languages.json from the letter pairs of langdetect's profiles.

    python tools/build_languages.py .../LANG_BIGRAMS.zip [OUT]

The zip holds how often one letter follows another in the Wikipedia of each language, counted by the authors of
language-detection, with capital letters made small and " " for whatever separates words. What is done here, and
nothing else:

1. Languages in Latin script are kept.
2. Two spellings of one letter are added up: "İ" and "i" (Turkish "İ" is a capital, without a small letter of its own in
   Unicode), "ș" and "ş", "ț" and "ţ" (Romanian, of which old texts use the second; so do the profiles themselves).
3. Small Latin letters and " " are kept; letters of other scripts and stray accents, from names and quotations, go.
4. Of these, the largest set is kept in which every letter can be reached from every other. The profiles leave out
   pairs rarer than about one in 100,000, so that some rare letters are never entered, or never left.

The result is text, not compressed: the same bytes on every machine, and small enough.
"""

import argparse
import csv
import io
import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "src" / "markovot" / "data" / "languages.json"
SAME = {"İ": "i", "ș": "ş", "ț": "ţ"}
NAMES = {
    "af": "Afrikaans", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "en": "English",
    "es": "Spanish", "et": "Estonian", "fi": "Finnish", "fr": "French", "hr": "Croatian", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "sk": "Slovak", "sl": "Slovene", "so": "Somali",
    "sq": "Albanian", "sv": "Swedish", "sw": "Swahili", "tl": "Tagalog", "tr": "Turkish", "vi": "Vietnamese",
}  # fmt: skip
NOTICE = (
    "Letter pairs counted in Wikipedia, from the profiles of language-detection (Copyright (c) 2010-2014 Cybozu Labs, "
    "Inc.) as they ship in langdetect (Copyright 2014 Michal \"Mimino\" Danilak), licensed under the Apache License, "
    "Version 2.0: see LICENSE-Apache-2.0.txt. Changed: languages in Latin script only; capital letters made small; "
    "letters of other scripts, and letters that are never entered or never left, removed."
)


def main(arguments: list[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("zip", type=Path, help="LANG_BIGRAMS.zip")
    parser.add_argument("out", type=Path, nargs="?", default=OUT, help=f"the file to write (default: {OUT})")
    options = parser.parse_args(arguments)
    languages = build(options.zip)
    options.out.write_bytes(dumped(languages))
    print(f"wrote {options.out}: {len(languages)} languages, {options.out.stat().st_size} bytes")


def build(path: Path) -> list[dict[str, Any]]:
    """Code, name, family and pairs of each language."""
    with zipfile.ZipFile(path) as archive:

        def text(part: str) -> str:
            return archive.read(f"LANG_BIGRAMS/{part}").decode()

        def table(part: str) -> Any:
            return np.loadtxt(io.StringIO(text(f"LANG_BIGRAMS_{part}.txt")), delimiter=",", ndmin=2)

        arcs = table("A").astype(int) - 1
        counts = table("edge_attributes")[:, 0].astype(int)
        owner = table("graph_indicator").astype(int)[:, 0] - 1
        letters = [chr(code) for code in table("node_labels").astype(int)[:, 0]]
        rows = list(csv.DictReader(io.StringIO(text("languages.csv"))))
    languages = []
    for number, row in enumerate(rows):
        if row["script"] != "LATIN":
            continue
        inside = owner[arcs[:, 0]] == number
        pairs: dict[tuple[str, str], int] = {}
        for (i, j), count in zip(arcs[inside].tolist(), counts[inside].tolist(), strict=True):
            pair = SAME.get(letters[i], letters[i]), SAME.get(letters[j], letters[j])
            if all(is_letter(letter) for letter in pair):
                pairs[pair] = pairs.get(pair, 0) + count
        kept = connected(pairs)
        found = {a + b: count for (a, b), count in sorted(pairs.items()) if a in kept and b in kept}
        code = row["language"]
        languages.append({"code": code, "name": NAMES[code], "family": row["family"], "pairs": found})
    return languages


def is_letter(letter: str) -> bool:
    """A small Latin letter, or what separates words."""
    return letter == " " or unicodedata.name(letter, "").startswith("LATIN SMALL LETTER ")


def connected(pairs: dict[tuple[str, str], int]) -> set[str]:
    """The largest set of letters that lead to one another."""
    letters = sorted({letter for pair in pairs for letter in pair})
    number = {letter: k for k, letter in enumerate(letters)}
    leads = np.eye(len(letters), dtype=bool)
    for a, b in pairs:
        leads[number[a], number[b]] = True
    for _ in range(len(letters).bit_length()):  # each round doubles the length of the paths
        leads = (leads.astype(int) @ leads.astype(int)) > 0
    mutual = leads & leads.T
    largest = mutual[mutual.sum(1).argmax()]
    return {letter for letter, inside in zip(letters, largest, strict=True) if inside}


def dumped(languages: list[dict[str, Any]]) -> bytes:
    """JSON, one line for each language, UTF-8."""
    lines = ",\n".join(json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in languages)
    notice = json.dumps(NOTICE, ensure_ascii=False)
    return f'{{"notice":{notice},\n"languages":[\n{lines}\n]}}\n'.encode()


if __name__ == "__main__":
    main()
