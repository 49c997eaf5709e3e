"""The languages as shipped: their letters, their laws, their families; and the script that makes the file."""

import importlib.util
import json
import unicodedata
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from markovot import datasets
from markovot.costs import ZeroOne

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = {
    "Romance": {"Catalan", "French", "Italian", "Portuguese", "Romanian", "Spanish"},
    "Germanic": {"Afrikaans", "Danish", "Dutch", "English", "German", "Norwegian", "Swedish"},
    "Slavic": {"Croatian", "Czech", "Polish", "Slovak", "Slovene"},
    "Baltic": {"Latvian", "Lithuanian"},
    "Uralic": {"Estonian", "Finnish", "Hungarian"},
    "Austronesian": {"Indonesian", "Tagalog"},
    "Celtic": {"Welsh"},
    "Albanian": {"Albanian"},
    "Turkic": {"Turkish"},
    "Cushitic": {"Somali"},
    "Bantu": {"Swahili"},
    "Austroasiatic": {"Vietnamese"},
}
# The alphabets, by other sources than the counts: every one of these letters is common in its language.
LETTERS = {
    "Polish": "ąćęłńóśźż", "Czech": "áéíýčďěňřšťůúž", "German": "äöüß", "Hungarian": "áéíóöőúüű", "Danish": "æøå",
    "Swedish": "åäö", "Turkish": "çğıöşü", "Spanish": "áéíñóú", "Romanian": "ăâîşţ", "Lithuanian": "ąčęėįšųūž",
    "Latvian": "āčēģīķļņšūž", "French": "àçèéêù", "Portuguese": "ãõçáéíóú", "Welsh": "âôŵŷ", "Albanian": "ëç",
    "Finnish": "äö", "Estonian": "äõöü", "Croatian": "čćđšž", "Vietnamese": "đăâêôơưể", "English": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def languages():
    return datasets.load_languages()


@pytest.fixture(scope="module")
def script():
    path = ROOT / "tools" / "build_languages.py"
    found = importlib.util.spec_from_file_location("build_languages", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def chain_of(languages, name):
    return languages.chains[languages.names.index(name)]


def test_31_languages_of_the_known_families(languages):
    assert len(languages) == len(languages.chains) == len(languages.names) == len(languages.codes) == 31
    assert languages.codes == sorted(set(languages.codes))
    found = {}
    for name, family in zip(languages.names, languages.families, strict=True):
        found.setdefault(family, set()).add(name)
    assert found == FAMILIES
    for code, name in {"fr": "French", "de": "German", "sl": "Slovene", "tl": "Tagalog", "cy": "Welsh"}.items():
        assert languages.names[languages.codes.index(code)] == name


def test_states_are_small_latin_letters_and_the_boundary(languages):
    for chain in languages.chains:
        boundary, *letters = chain.state_names
        assert boundary == "_"
        assert letters == sorted(set(letters))
        assert all(unicodedata.name(letter).startswith("LATIN SMALL LETTER") for letter in letters)
        assert chain.features.dtype == torch.int64
        assert chain.features.tolist() == [32, *map(ord, letters)]


@pytest.mark.parametrize("name", LETTERS)
def test_alphabets_are_those_of_the_languages(languages, name):
    letters = set(chain_of(languages, name).state_names)
    # Some letters of foreign words are in no pair that is common enough: q in Czech, ď and ť after a vowel's end.
    missing = set("abcdefghijklmnoprstuvy") | set(LETTERS[name])
    assert missing - letters <= {"ď", "ť"}


def test_equal_letters_of_two_languages_cost_nothing(languages):
    french, danish = chain_of(languages, "French"), chain_of(languages, "Danish")
    cost = ZeroOne()(french.features, danish.features)
    for i, a in enumerate(french.state_names):
        for j, b in enumerate(danish.state_names):
            assert cost[i, j] == float(a != b)


def test_every_letter_leads_to_every_other(languages):
    for chain in languages.chains:
        assert connected_components(chain.to_dense().transition.numpy() > 0, connection="strong")[0] == 1


def test_initial_law_is_the_stationary_one_unless_asked_otherwise(languages):
    for chain in languages.chains:
        assert chain.initial_law == "stationary"
        assert chain.dtype == torch.float64
        law = chain.initial
        torch.testing.assert_close(law @ chain.to_dense().transition, law)
        assert float(law.min()) > 0
    uniform = datasets.load_languages(initial="uniform").chains[0]
    torch.testing.assert_close(uniform.initial, torch.full((30,), 1 / 30, dtype=torch.float64))
    with pytest.raises(ValueError, match="initial"):
        datasets.load_languages(initial="given")


def test_common_letters_of_english_are_the_known_ones(languages):
    english = chain_of(languages, "English")
    order = english.initial.argsort(descending=True).tolist()
    assert [english.state_names[state] for state in order[:3]] == ["_", "e", "a"]
    transition = english.to_dense().transition
    q, u, h, t = (english.state_names.index(letter) for letter in "quht")
    assert transition[q, u] > 0.9
    assert transition[t].argmax() == h


def test_chain_is_the_share_of_the_counts(languages):
    text = (resources.files("markovot") / "data" / "languages.json").read_text(encoding="utf-8")
    item = next(item for item in json.loads(text)["languages"] if item["name"] == "Finnish")
    chain = chain_of(languages, "Finnish")
    names = [" ", *chain.state_names[1:]]
    counts = np.array([[item["pairs"].get(a + b, 0) for b in names] for a in names], dtype=float)
    np.testing.assert_allclose(chain.to_dense().transition.numpy(), counts / counts.sum(1, keepdims=True), rtol=1e-12)


def test_repr_and_citation(languages):
    assert repr(languages) == "LanguageDataset(31 languages of 12 families, 33.8 states each in the mean)"
    assert "Apache License, Version 2.0" in languages.citation


def test_licence_and_notice_ship_with_the_data():
    folder = resources.files("markovot") / "data"
    licence = (folder / "LICENSE-Apache-2.0.txt").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    notice = json.loads((folder / "languages.json").read_text(encoding="utf-8"))["notice"]
    for source in (notice, (folder / "README.md").read_text(encoding="utf-8")):
        assert "Copyright (c) 2010-2014 Cybozu Labs, Inc." in source
        assert "Apache License" in source
    assert "Changed:" in notice
    assert len((folder / "languages.json").read_bytes()) < 300_000


# --- the script
def test_script_makes_the_same_bytes_again(script, shared_data, tmp_path, capsys):
    out = tmp_path / "languages.json"
    script.main([str(shared_data / "markov" / "LANG_BIGRAMS.zip"), str(out)])
    assert out.read_bytes() == (resources.files("markovot") / "data" / "languages.json").read_bytes()
    assert "31 languages, " in capsys.readouterr().out


def test_script_keeps_small_latin_letters_and_the_space(script):
    assert all(script.is_letter(letter) for letter in " azéßłể")
    assert not any(script.is_letter(letter) for letter in ("A", "1", "я", "α", "之", "\u0301", "ª", "."))


def test_script_keeps_the_largest_set_of_letters_that_lead_to_one_another(script):
    ring = {("a", "b"): 1, ("b", "c"): 1, ("c", "d"): 1, ("d", "e"): 1, ("e", "a"): 1}
    assert script.connected(ring | {("a", "x"): 1, ("y", "a"): 1, ("u", "v"): 1, ("v", "u"): 1}) == set("abcde")
