"""What is measured: groups of cases, each with the packages that solve it. Importing this loads nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = "markovot"
OMD = "ot-markov-distances"
TIGHT = "ot-markov-distances, tight"
POT_LOOP = "POT emd2 loop"
FGW = "POT fused GW"
POT = "POT"
PYOTC = "pyotc"
WWL = "wwl"
GRAKEL = "GraKeL WL"
ORACLE = "oracle"  # an independent slow solution, where the case is small

EXAMINED = {
    "markovot.discounted_wl": "markovot",
    "ot_markov_distances.discounted_wl_infty": OMD,
    "markovot.transport_cost": "markovot",
    "ot.sinkhorn2": "pot",
    "ot.sinkhorn2, warn=True": "pot",
    "ot.sinkhorn2, log domain, warn=True": "pot",
    "ot.solve": "pot",
    "markovot.transport_cost, exact": "markovot",
    "ot.emd2": "pot",
    "markovot.discounted_wl, exact": "markovot",
    "ot.gromov.fused_gromov_wasserstein2": "pot",
    "markovot.optimal_transition_coupling": "markovot",
    "pyotc.exact_otc": "pyotc",
    "pyotc.exact_otc, sparse": "pyotc",
}

# Which distribution each needs: its name on the package index.
NEEDS = {OURS: "markovot", ORACLE: "markovot", OMD: OMD, TIGHT: OMD, POT_LOOP: "pot", FGW: "pot", POT: "pot"} | {
    PYOTC: "pyotc",
    WWL: "wwl",
    GRAKEL: "grakel",
    **EXAMINED,
}

DENSE_ARRAY = "one array of n m n m floats is 17 GB"


@dataclass(frozen=True)
class Case:
    """One point: `problem` of problems.py with `arguments`; `warm` replaces some of them for the call before timing."""

    x: Any
    arguments: Mapping[str, Any]
    warm: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    goal: tuple[float, float] | None = None  # seconds: within reach, aimed at
    oracle: bool = False
    excused: Mapping[str, str] = field(default_factory=dict)  # packages that are not run, and why


@dataclass(frozen=True)
class Group:
    """Cases along one axis, or the lines of one table where `axis` is empty."""

    key: str
    title: str
    text: str
    kind: str  # discounted, exact, average, matrix, set, startup
    problem: str
    cases: tuple[Case, ...]
    packages: tuple[str, ...]
    axis: str = ""
    gradients: bool = False
    warm: str = ""  # the problem before timing, if it is another one
    tasks: Mapping[str, int] = field(default_factory=dict)  # a package solves only so many of the pairs
    rtol: float = 1e-4  # asked of ours
    growing: bool = True  # a package that met the limit is not tried at larger x
    quick: tuple[Any, ...] = ()  # the cases of --quick, by x
    limit: float | None = None  # seconds, instead of --limit

    def case(self, x: str) -> Case:
        return next(case for case in self.cases if str(case.x) == x)


SOLVERS = (OURS, OMD, TIGHT)
GROUPS = (
    Group(
        "mutag",
        "Pairs of molecules",
        "Random pairs of MUTAG's molecules, one call a pair; delta = .2, epsilon = .01, cost 1 between different "
        "atoms. Fused Gromov-Wasserstein is another distance, shown for its time.",
        "discounted",
        "mutag_pairs",
        (Case("200", {"count": 200}, {"n": 5}, goal=(2e-3, 1e-3)),),
        (*SOLVERS, FGW),
        gradients=True,
        tasks={OMD: 8, TIGHT: 2},
        warm="sparse_pair",
        quick=("200",),
    ),
    Group(
        "sparse",
        "Size, sparse chains",
        "Random rows of degree 3 against 4, squared distances of ten features (range about 60), delta = .1, "
        "epsilon = .01.",
        "discounted",
        "sparse_pair",
        (
            Case(8, {"n": 8}, {"n": 5}, oracle=True),
            Case(16, {"n": 16}, {"n": 5}),
            Case(32, {"n": 32}, {"n": 5}),
            Case(64, {"n": 64}, {"n": 5}, goal=(0.08, 0.035)),
            Case(128, {"n": 128}, {"n": 5}),
            Case(256, {"n": 256}, {"n": 5}, goal=(1.0, 0.4)),
            Case(512, {"n": 512}, {"n": 5}),
            Case(1024, {"n": 1024}, {"n": 5}, goal=(16.0, 6.0)),
        ),
        SOLVERS,
        "n = m",
        gradients=True,
        quick=(8, 32),
    ),
    Group(
        "dense",
        "Size, dense chains",
        "Full random rows, costs uniform in [0, 1], delta = .1, epsilon = .05.",
        "discounted",
        "dense_pair",
        (
            Case(8, {"n": 8}, {"n": 5}, oracle=True),
            Case(16, {"n": 16}, {"n": 5}),
            Case(32, {"n": 32}, {"n": 5}),
            Case(64, {"n": 64}, {"n": 5}, goal=(0.3, 0.15)),
            Case(128, {"n": 128}, {"n": 5}),
            Case(256, {"n": 256}, {"n": 5}, goal=(float("inf"), 60.0), excused={OMD: DENSE_ARRAY, TIGHT: DENSE_ARRAY}),
        ),
        SOLVERS,
        "n = m",
        gradients=True,
        quick=(8, 16),
    ),
    Group(
        "mixed",
        "A dense chain against a sparse one",
        "Full rows, n = 20, against rows of degree 5, m = 64; the cost as for sparse chains.",
        "discounted",
        "mixed_pair",
        (Case("20 x 64", {"n": 20, "m": 64}, {"n": 5, "m": 6}, goal=(0.1, 0.05)),),
        SOLVERS,
        gradients=True,
    ),
    Group(
        "degree",
        "Degree",
        "Both chains of 32 states and one degree; squared distances of ten features scaled to a range of one; "
        "delta = .1, epsilon = .01.",
        "discounted",
        "unit_pair",
        tuple(Case(d, {"n": 32, "degree": d}, {"n": 8, "degree": min(d, 8)}) for d in (2, 4, 8, 16, 32)),
        (OURS, OMD),
        "degree",
        gradients=True,
    ),
    Group(
        "delta",
        "Discount",
        "16 states of degree 4, costs of range one, epsilon = .01. Small delta looks far ahead: 1/delta steps.",
        "discounted",
        "unit_pair",
        tuple(Case(d, {"n": 16, "delta": d}, {"n": 8}) for d in (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)),
        SOLVERS,
        "delta",
        growing=False,
        quick=(0.2,),
    ),
    Group(
        "epsilon",
        "Regularisation",
        "16 states of degree 4, costs of range one, delta = .1.",
        "discounted",
        "unit_pair",
        tuple(Case(e, {"n": 16, "epsilon": e}, {"n": 8}) for e in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)),
        SOLVERS,
        "epsilon",
        growing=False,
        quick=(0.01, 0.001),
    ),
    Group(
        "exact",
        "Exact transport (epsilon = 0)",
        "The sparse chains above with epsilon = 0, where ot-markov-distances gives NaN. The rival is a loop that one "
        "might write: value iteration over POT's `emd2` on the supports, until its step promises the same accuracy.",
        "exact",
        "sparse_pair",
        tuple(Case(n, {"n": n, "epsilon": 0.0}, {"n": 5}, oracle=n == 8) for n in (8, 16, 32, 64, 128, 256)),
        (OURS, POT_LOOP),
        "n = m",
        gradients=True,
        quick=(8, 16),
    ),
    Group(
        "average",
        "Average cost: optimal transition coupling",
        "Block models of four blocks, squared differences of degrees for a cost; exact (epsilon = 0). pyotc's answer "
        "is that of exact policy iteration, so ours is asked for 1e-10.",
        "average",
        "block_models",
        tuple(Case(n, {"n": n}, {"n": 8}, oracle=n == 8) for n in (8, 20, 40, 60, 100)),
        (OURS, PYOTC),
        "states of each graph",
        gradients=True,
        rtol=1e-10,
        quick=(8, 20),
    ),
    Group(
        "matrix",
        "All pairs of some molecules",
        "Symmetric matrices over the first molecules of MUTAG (in a drawn order); the packages that have no such "
        "function are called in a loop over the pairs. wwl, GraKeL's WL kernel and fused Gromov-Wasserstein measure "
        "other things, and are shown for their time; the loop over `emd2` is the exact distance.",
        "matrix",
        "molecules",
        tuple(Case(n, {"count": n}, {"count": 2}) for n in (10, 40, 188)),
        (OURS, OMD, POT_LOOP, FGW, WWL, GRAKEL),
        "graphs",
        quick=(10,),
    ),
    Group(
        "sets",
        "Whole data sets",
        "markovot alone, certified to 1e-3 of the range of the cost. PROTEINS: 2,000 random pairs, from which the "
        "time of all pairs is reckoned. Nearest neighbour: of each molecule among the other 187.",
        "set",
        "graphs",
        (
            Case("MUTAG", {"name": "MUTAG"}),
            Case("MUTAG, one core", {"name": "MUTAG"}),
            Case("MUTAG, exact", {"name": "MUTAG"}),
            Case("PTC_MR", {"name": "PTC_MR"}),
            Case("PROTEINS, 2000 random pairs", {"name": "PROTEINS"}),
            Case("nearest neighbour in MUTAG", {"name": "MUTAG"}),
        ),
        (OURS,),
        growing=False,
        limit=120.0,
    ),
    Group(
        "startup",
        "Start",
        "Seconds in a fresh process: `import markovot` after torch; the first call with its backward pass, and one of "
        "each kind of chain, with a cold compile cache and in later processes.",
        "startup",
        "",
        (Case("first calls", {}),),
        (OURS,),
        limit=120.0,
    ),
    Group(
        "training",
        "A step of training",
        "",
        "training",
        "",
        (Case("15 dense coarsen 30 sparse", {"steps": 100}),),
        (OURS,),  # and, in the same process, the rival
        limit=240.0,
    ),
    Group(
        "claims",
        "What the others do, tried",
        "",
        "claims",
        "",
        (Case("all", {}),),
        (OMD, POT, PYOTC, GRAKEL, WWL),
        limit=600.0,
    ),
    Group(
        "safety",
        "Does it fail safely?",
        "",
        "safety",
        "",
        (Case("all", {}),),
        tuple(EXAMINED),
        quick=("all",),
        limit=240.0,
    ),
)
