"""Every package side by side: `make bench`, or `run.py --quick`. Goes on where it stopped."""

import argparse
import json
import signal
import sys
from pathlib import Path

from machine import machine
from suite import cases, packages
from suite.page import page
from suite.runner import Plan, run
from suite.store import Store

HERE = Path(__file__).resolve().parent
VERSIONS = ("markovot", "torch", "numpy", "scipy", "numba", *packages.rivals())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small cases only: some minutes")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--busy", action="store_true", help="measure again what was made while others used the machine")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="parts of GROUP/CASE/PACKAGE")
    parser.add_argument("--limit", type=float, default=45.0, help="seconds that a measurement may take")
    parser.add_argument("--page", action="store_true", help="write the page from what is there")
    parser.add_argument("--list", action="store_true", help="name the measurements")
    parser.add_argument("--json", type=Path, default=HERE / "benchmarks.json")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="folder of the page")
    return parser.parse_args()


def write(store: Store, docs: Path) -> None:
    history = HERE / "history.json"
    text = page(store, json.loads(history.read_text()) if history.exists() else [], docs)
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")
    print(f"wrote {docs / 'benchmarks.md'}", file=sys.stderr)


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))  # and ends its workers
    store = Store(options.json)
    plan = Plan(options.limit, options.quick, options.fresh, options.busy, options.only)
    if options.list:
        print("\n".join(f"{group.key}/{case.x}/{package}" for group, case, package in plan.measurements()))
        return
    if not options.page:
        missing = {name: packages.missing(name) for name in cases.NEEDS}
        store.about = {
            "machine": machine(VERSIONS),
            "missing": {name: reason for name, reason in missing.items() if reason},
            "limit": options.limit,
        }
        store.save()
        try:
            run(plan, store)
        finally:  # also where it was interrupted
            write(store, options.docs)
    else:
        write(store, options.docs)


if __name__ == "__main__":
    main()
