"""The letters of 31 languages as Markov chains; the counts ship with the package."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch

from markovot import validate
from markovot.chains import MarkovChain

BOUNDARY = "_"  # the name of the state between two words; its feature is the code point of the space
_CITATION = (
    "Nakatani Shuyo. Language detection library for Java, 2010: its profiles, Copyright (c) 2010-2014 Cybozu Labs, "
    "Inc., as they ship in the Python package langdetect (M. Danilak, 2014). Apache License, Version 2.0."
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LanguageDataset:
    """Languages, each as the chain of its letters.

    Attributes:
        chains: one for each language. The states are its letters and the boundary between words, in the order of their
            Unicode code points (the boundary first), which are also the `features`, int64: a letter has the same in
            every language, so that `costs.ZeroOne()` compares them. `state_names` are the letters, "_" the boundary.
        names: the English name of each language.
        codes: the ISO 639-1 code of each.
        families: the family of each: the branch of Indo-European (Romance, Germanic, Slavic, Baltic, Celtic, Albanian)
            or of Afro-Asiatic (Cushitic) and Niger-Congo (Bantu), or else the family itself.
        citation: what to cite when you use the set.
    """

    chains: list[MarkovChain]
    names: list[str]
    codes: list[str]
    families: list[str]
    citation: str

    def __len__(self) -> int:
        return len(self.chains)

    def __repr__(self) -> str:
        states = sum(chain.num_states for chain in self.chains) / max(len(self), 1)
        count = f"{len(self)} languages of {len(set(self.families))} families"
        return f"LanguageDataset({count}, {states:.1f} states each in the mean)"


def load_languages(*, initial: str = "stationary") -> LanguageDataset:
    r"""Load the letter chains of the 31 languages in Latin script of the langdetect package.

    $$P_{ab} = N_{ab} / \textstyle\sum_c N_{ac},$$

    with N_ab the number of times that letter b follows letter a in the Wikipedia of the language. The data ship with
    the package: nothing is downloaded.

    The states are small letters (capitals count as small) and the boundary between words, which stands for spaces,
    digits and punctuation alike. Letters of other scripts are left out, and so are letters so rare that the counts,
    which end at about one pair in 100,000, never enter or never leave them, such as the French "œ". Every letter
    can therefore be reached from every other, and the stationary law is unique. In Vietnamese one state, "ể", stands
    for all letters from "Ạ" (U+1EA0) to "ỿ" (U+1EFF), which the profiles do not tell apart.

    Args:
        initial: the law of the first letter: "stationary", how often letters occur in running text, which leaves rare
            letters little to say; or "uniform".

    Returns:
        The languages, in the order of their codes: sparse float64 chains of 25 to 56 states.

    Raises:
        ValueError: another initial law.

    References:
        Nakatani Shuyo, Language detection library for Java, 2010. Copyright (c) 2010-2014 Cybozu Labs, Inc., Apache
        License, Version 2.0; the licence and what was changed stand in the folder `markovot/data`.

    Example:
        >>> languages = load_languages()
        >>> languages
        LanguageDataset(31 languages of 12 families, 33.8 states each in the mean)
        >>> french = languages.chains[languages.names.index("French")]
        >>> after_q = french.to_dense().transition[french.state_names.index("q")]
        >>> french.state_names[after_q.argmax()]
        'u'
    """
    validate.choice("initial", initial, ("stationary", "uniform"))
    text = (resources.files("markovot") / "data" / "languages.json").read_text(encoding="utf-8")
    items = json.loads(text)["languages"]
    return LanguageDataset(
        chains=[_chain(item["pairs"], initial) for item in items],
        names=[item["name"] for item in items],
        codes=[item["code"] for item in items],
        families=[item["family"] for item in items],
        citation=_CITATION,
    )


def _chain(pairs: dict[str, int], initial: str) -> MarkovChain:
    """The chain of a language, from the counts of its pairs of letters."""
    from scipy.sparse import csr_array

    letters = sorted({letter for pair in pairs for letter in pair})
    number = {letter: k for k, letter in enumerate(letters)}
    where = np.array([[number[pair[0]], number[pair[1]]] for pair in pairs]).T
    counts: Any = csr_array((np.array(list(pairs.values()), dtype=float), tuple(where)), shape=(len(letters),) * 2)
    return MarkovChain.from_adjacency(
        counts,
        initial=initial,
        features=torch.tensor([ord(letter) for letter in letters], device="cpu"),
        state_names=[BOUNDARY if letter == " " else letter for letter in letters],
        dead_ends="error",
    )
