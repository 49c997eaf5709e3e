"""What our pages say of other packages is run: how claims are judged, and those about packages that are installed."""

import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not part of the source distribution")
if FOLDER.exists():
    sys.path.insert(0, str(FOLDER))
    try:
        from suite import cases, claims, claims_page, packages, training
        from suite.store import Store
    finally:
        sys.path.remove(str(FOLDER))


def late():
    time.sleep(5)
    return "an answer"


def refuses():
    raise TypeError("no\nmore")


def test_what_comes_of_a_claim(monkeypatch):
    def found(run):
        return claims.outcome(claims.Claim("POT", "words", "", run))

    monkeypatch.setattr(claims, "PATIENCE", 0.1)
    assert found(lambda: "gives cost") == "gives cost"
    assert found(refuses) == "TypeError: no"
    assert found(late) == claims.NO_ANSWER


def test_a_claim_that_no_longer_holds_is_in_bold(tmp_path):
    group = next(group for group in cases.GROUPS if group.kind == "claims")
    store = Store(tmp_path / "found.json")
    told = {claim.words: claim.expected for claim in claims.CLAIMS if claim.package == cases.PYOTC}
    words = next(iter(told))
    store.put(group, group.cases[0], cases.PYOTC, {"outcome": "ok", "version": "9", "claims": told})
    assert "**" not in claims_page.claimed(store, group)
    store.put(group, group.cases[0], cases.PYOTC, {"outcome": "ok", "claims": told | {words: "another value"}})
    assert f"**another value** (our pages say: {told[words]})" in claims_page.claimed(store, group)


def test_every_package_of_the_comparison_has_claims():
    text = (FOLDER.parent / "docs" / "comparison.md").read_text(encoding="utf-8")
    header = next(line for line in text.splitlines() if "markovot 0" in line)
    group = next(group for group in cases.GROUPS if group.kind == "claims")
    assert set(claims.SAID) == set(group.packages)
    assert len(group.packages) == header.count("|") - 3  # not the first column, nor ours
    assert all(claim.expected for claim in claims.CLAIMS)
    assert len({(claim.package, claim.words) for claim in claims.CLAIMS}) == len(claims.CLAIMS)


@pytest.mark.parametrize("claim", [each for each in claims.CLAIMS if packages.missing(each.package) is None]
                         if FOLDER.exists() else [], ids=lambda claim: f"{claim.package}: {claim.words}")  # fmt: skip
def test_a_claim_about_a_package_that_is_here_holds(claim):
    found = claims.outcome(claim)
    assert claims.as_said(claim, found), found


def test_a_step_of_training_lowers_the_distance_and_all_are_given_the_same_start():
    found = training.measured([cases.OURS], 3)
    each = found["trainings"][cases.OURS]
    assert each["error of the value"] < training.RTOL
    assert each["ends at"] < each["starts at"]
    assert found["steps"] == 3
    double, single = (training.Task().parameters(dtype) for dtype in (training.torch.float64, training.torch.float32))
    for one, other in zip(double, single, strict=True):
        training.torch.testing.assert_close(one.float(), other)
