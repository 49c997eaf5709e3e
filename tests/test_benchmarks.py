import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not part of the source distribution")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.fixture
def suite():
    from suite import cases, packages, page, runner, store

    names = {"cases": cases, "packages": packages, "page": page, "runner": runner, "store": store}
    return type("Suite", (), names)


def every(suite):
    return [
        (group, case, package) for group in suite.cases.GROUPS for case in group.cases for package in group.packages
    ]


def measurement(suite, group, package, **changed):
    """One as a worker gives it."""
    found = {"outcome": "ok", "seconds": 0.5, "pairs": 1, "memory": 3.0, "load": 0.1, "others": 0.0}
    found |= {"when": "2030-01-02 03:04", "version": "1.0"}
    if group.kind in ("discounted", "exact", "average"):
        found |= {"values": [2.0], "warnings": [], "status": ["CONVERGED"], "backward": 0.25, "gradient": [1.0, 2.0]}
    if package == suite.cases.OURS:
        found |= {"truth": [2.0], "range": [1.0], "certified": [1e-5], "true gradient": [1.0, 2.0]}
    if group.kind == "training":
        each = {"median_ms": 5.0, "total_s": 1.0, "error of the value": 1e-3, "starts at": 0.7, "ends at": 0.5}
        found |= {"steps": 100.0, "trainings": {suite.cases.OURS: each, suite.cases.OMD: each | {"median_ms": 20.0}}}
    if group.kind == "claims":
        from suite import claims

        found["claims"] = {claim.words: claim.expected for claim in claims.CLAIMS if claim.package == package}
    if group.kind == "safety":
        counts = {"right, said to be right": 4, "wrong, said to be right": 2}
        found["hard"] = [{"setting": "defaults", "epsilon": 0.01, "counts": counts, "worst": 0.25}]
        found["ends"] = [{"epsilon": 1e-8, "reached": 1, "says not": 5, "outside": 0, "widest": 1e-4}]
        found["bad input"] = {"NaN in the cost": "quietly 3", "empty": "ValueError: no states"}
    return found | changed


@pytest.fixture
def filled(suite, tmp_path):
    """A store that has all measurements."""
    store = suite.store.Store(tmp_path / "found.json")
    store.about = {"machine": {"cores": 2}, "missing": {}, "limit": 45.0}
    for group, case, package in every(suite):
        store.put(group, case, package, measurement(suite, group, package))
    return store


@pytest.fixture
def plain(suite, monkeypatch):
    """Pages without pictures, which take most of the time."""
    monkeypatch.setattr("suite.plots.along", lambda *_: False)
    monkeypatch.setattr("suite.plots.history", lambda *_: False)


def lines(text, word):
    return [line for line in text.splitlines() if word in line]


def test_every_case_names_its_packages_and_each_of_them_where_it_comes_from(suite):
    from suite.examinees import EXAMINEES

    for group in suite.cases.GROUPS:
        assert group.packages
        assert group.cases
        assert set(group.packages) <= set(suite.cases.NEEDS)
        assert len({case.x for case in group.cases}) == len(group.cases)
        assert set(group.quick) <= {case.x for case in group.cases}
    safety = next(group for group in suite.cases.GROUPS if group.kind == "safety")
    assert set(safety.packages) == set(EXAMINEES)


def test_every_problem_can_be_made(suite):
    from suite import problems, worker

    for group, case, package in every(suite):
        if group.kind in ("discounted", "exact", "average"):
            tasks = worker.made(group, case, package, warm=True)
            assert tasks
            for task in tasks:
                assert task.cost.shape == (len(task.rows_x), len(task.rows_y))
                assert abs(float(task.rows_x.sum()) - len(task.rows_x)) < 1e-9
                assert (task.epsilon == 0.0) == (group.kind != "discounted")
    assert len(problems.molecules(3)) == 3


def test_the_page_shows_every_measurement_and_draws_every_picture(suite, filled, tmp_path):
    entries = [{"commit": name, "date": "2030-01-02", "least": {"forward": t}, "load": 0.1, "others": 0.0}
               for name, t in (("abc", 0.5), ("def", 0.25))]  # fmt: skip
    text = suite.page.page(filled, entries, tmp_path)
    for group in suite.cases.GROUPS:
        assert f"## {group.title}" in text
        if group.axis:
            assert f"(benchmarks/{group.key}.png)" in text
            assert (tmp_path / "benchmarks" / f"{group.key}.png").stat().st_size > 5000
    assert (tmp_path / "benchmarks" / "history.png").exists()
    assert "2 of 6" in lines(text, "`ot.emd2`")[0]
    assert "**quietly 3**" in lines(text, "`ot.emd2`")[1]
    assert "| 1e-08 | 1 | 5 | 1e-04 | 0 |" in text
    assert "| ot-markov-distances | 20 ms | 4.0 | 0.1 % | 0.5000 |" in text
    assert "our pages say" not in text
    assert "provisional" not in text
    # Each cell of a table belongs to a column.
    for line, after in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line.startswith("|") and after.startswith("|"):
            assert line.count("|") == after.count("|"), line


def test_an_empty_store_makes_a_page_too(suite, plain, tmp_path):
    text = suite.page.page(suite.store.Store(tmp_path / "none.json"), [], tmp_path)
    assert "Not run yet" in text


def test_a_package_that_is_not_installed_is_named_with_the_reason(suite, filled, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.packages, "version", lambda name: None if name == "pyotc" else "1.0")
    reasons = tmp_path / "reasons.json"
    reasons.write_text(json.dumps({"pyotc": "ERROR: no wheel for this Python"}))
    monkeypatch.setattr(suite.packages, "REASONS", reasons)
    reason = suite.packages.missing("pyotc")
    assert reason == "not installed: ERROR: no wheel for this Python"
    group = next(group for group in suite.cases.GROUPS if group.key == "average")
    found = suite.runner.one(suite.runner.Plan(), filled, group, group.cases[0], "pyotc")
    assert found == {"outcome": "skipped", "reason": reason}
    filled.put(group, group.cases[0], "pyotc", found)
    filled.about["missing"] = {"pyotc": reason}
    text = suite.page.page(filled, [], tmp_path)
    assert f"**pyotc** was not run: {reason}." in text
    assert lines(text, f"| pyotc | {reason} |")


def test_a_run_goes_on_where_it_stopped(suite, tmp_path, monkeypatch):
    calls = []

    def measured(arguments, limit):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"outcome": "ok", "seconds": 1.0}

    monkeypatch.setattr(suite.runner, "measured", measured)
    monkeypatch.setattr(suite.packages, "missing", lambda package: None)
    plan = suite.runner.Plan(only=["delta/"])
    with pytest.raises(KeyboardInterrupt):
        suite.runner.run(plan, suite.store.Store(tmp_path / "found.json"))
    suite.runner.run(plan, suite.store.Store(tmp_path / "found.json"))
    names = ["/".join(arguments) for arguments in calls]
    assert len(names) == len(set(names)) + 1 == len(plan.measurements()) + 1
    suite.runner.run(plan, suite.store.Store(tmp_path / "found.json"))
    assert len(calls) == len(names)
    suite.runner.run(suite.runner.Plan(only=["delta/"], fresh=True), suite.store.Store(tmp_path / "found.json"))
    assert len(calls) == len(names) + len(plan.measurements())


def test_a_changed_case_is_measured_again(suite, filled):
    from dataclasses import replace

    group = suite.cases.GROUPS[1]
    assert filled.get(group, group.cases[0], suite.cases.OURS)
    assert filled.get(group, replace(group.cases[0], arguments={"n": 9}), suite.cases.OURS) is None


def test_what_met_the_limit_is_said_and_not_tried_on_larger_cases(suite, filled, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(suite.packages, "missing", lambda package: None)
    group = next(group for group in suite.cases.GROUPS if group.key == "average")
    filled.put(group, group.cases[1], "pyotc", {"outcome": "limit", "limit": 45.0, "pairs": 1})
    plan = suite.runner.Plan()
    for case in group.cases[2:]:
        found = suite.runner.one(plan, filled, group, case, "pyotc")
        assert found == {"outcome": "skipped", "reason": "not tried: > 45 s at 20"}
        filled.put(group, case, "pyotc", found)
    text = suite.page.page(filled, [], tmp_path)
    assert "| 20 | pyotc | > 45 s | > 90 |" in text
    assert text.count("not tried: > 45 s at 20") == 1
    assert plan.done(filled.get(group, group.cases[1], "pyotc"))
    assert not suite.runner.Plan(limit=90.0).done(filled.get(group, group.cases[1], "pyotc"))


def test_a_process_that_takes_too_long_is_stopped_and_keeps_what_it_had(suite, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import sys, time\nprint('READY 2', flush=True)\n"
        "if sys.argv[1] == 'late': print('{\"seconds\": 1.0}', flush=True)\n"
        "if sys.argv[1] == 'fails': raise ValueError('no such thing')\n"
        "time.sleep(30)\n"
    )
    start = [sys.executable, str(worker)]
    monkeypatch.setattr(suite.runner, "command", lambda arguments: [*start, *arguments])
    assert suite.runner.measured(["never"], 0.2) == {"outcome": "limit", "limit": 0.2, "pairs": 2}
    assert suite.runner.measured(["late"], 0.2) == {"outcome": "ok", "seconds": 1.0, "stopped": 0.2}
    assert suite.runner.measured(["fails"], 5.0) == {"outcome": "failed", "reason": "ValueError: no such thing"}


def test_measurements_made_on_a_busy_machine_are_marked(suite, filled, plain, tmp_path):
    group = suite.cases.GROUPS[0]
    found = measurement(suite, group, suite.cases.OURS, others=0.7)
    filled.put(group, group.cases[0], suite.cases.OURS, found)
    text = suite.page.page(filled, [], tmp_path)
    assert "| markovot | 500 ms † |" in text
    assert "provisional" in text
    assert not suite.runner.Plan(again_if_busy=True).done(filled.get(group, group.cases[0], suite.cases.OURS))
    stopped = {"outcome": "limit", "limit": 45.0, "pairs": 1, "others": 0.7}
    assert suite.runner.Plan().done(stopped)
    assert not suite.runner.Plan(again_if_busy=True).done(stopped)
    # Where the work of others is not known, by the load average.
    assert suite.store.busy({"others": None, "load": 1.5})
    assert not suite.store.busy({"others": None, "load": 1.1})


def test_the_verdict_on_an_answer(suite):
    import warnings

    from suite.examinees import Examinee, Said
    from suite.safety import average, bad_input, judged, truth

    question = average(0, 0.0)
    right = truth("average", question)[0]
    spread = float(question.cost.max() - question.cost.min())

    def says(value, *, warn=False, **rest):
        def call(question):
            if warn:
                warnings.warn("not converged", UserWarning, stacklevel=1)
            return Said(value, **rest)

        return judged(Examinee(call, "average"), question, {})[0]

    def refuses(question):
        raise ValueError("no")

    assert says(right) == "right, said to be right"
    assert says(right + 2e-4 * spread) == "wrong, said to be right"
    assert says(float("nan")) == "wrong, said to be right"
    assert says(right + 2e-4 * spread, warn=True) == "wrong, said so"
    assert says(right + 2e-4 * spread, fine=False) == "wrong, said so"
    # Within the tolerance, but not within its own certificate.
    assert says(right + 5e-5 * spread, bound=1e-6 * spread) == "wrong, said to be right"
    assert judged(Examinee(refuses, "average"), question, {})[0] == "refused"
    assert bad_input(Examinee(lambda question: Said(3.0), "average"))["sums to two"] == "quietly 3"


def test_history_keeps_a_commit_once(suite):
    from history import appended

    entries = appended(appended([], {"commit": "a", "t": 1}), {"commit": "b", "t": 2})
    assert appended(entries, {"commit": "a", "t": 3}) == [{"commit": "a", "t": 3}, {"commit": "b", "t": 2}]
