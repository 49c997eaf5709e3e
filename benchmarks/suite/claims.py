"""What our pages say of other packages, tried: each claim is run, and the page of the benchmarks shows what came of it.

A claim has the words of what is tried and how what comes of it must begin; whoever changes a sentence about a package
changes its claim, and whoever has no claim to run leaves the sentence out.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from suite import cases, training
from suite import claims_tried as tried
from suite.safety import Late, patience

PATIENCE = 60  # seconds a claim; what is compared with ours may have to compile ours first
NO_ANSWER = f"no answer in {PATIENCE} s"


@dataclass(frozen=True)
class Claim:
    """`run` gives words, or raises; `expected` is how these, or the name of the exception, begin."""

    package: str
    words: str
    expected: str
    run: Callable[[], str]


def outcome(claim: Claim) -> str:
    """What came of it, in a line."""
    try:
        with warnings.catch_warnings(), patience(PATIENCE), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return claim.run()
    except Late:
        return NO_ANSWER
    except Exception as error:  # whatever it raises is what came of it
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:160]


def as_said(claim: Claim, found: str) -> bool:
    return found.startswith(claim.expected)


def examine(package: str) -> Iterator[dict[str, Any]]:
    """All claims about one package, growing."""
    found: dict[str, str] = {}
    for claim in CLAIMS:
        if claim.package == package:
            found[claim.words] = outcome(claim)
            yield {"claims": found}


SIZES = f"X of {tried.X} states, {{}}; Y of {tried.Y}, {{}}"
ALONE = f"gradients at its defaults, each input asked for alone: {SIZES}"
SNIPPET, METADATA = "the snippet of the page on moving over", "its metadata"
SAID = {
    cases.OMD: (
        (
            ALONE.format("dense", "dense"),
            "gives law of X, law of Y; TypeError for cost",
            partial(tried.omd_gradients, "dense", "dense"),
        ),
        (
            "dense against dense with y_is_sparse=True",
            "gives cost, law of X, law of Y, rows of X; AssertionError for rows of Y",
            partial(tried.omd_gradients, "dense", "dense", y_is_sparse=True),
        ),
        (
            ALONE.format("dense", "sparse"),
            "gives cost, law of X, law of Y, rows of X; AssertionError for rows of Y",
            partial(tried.omd_gradients, "dense", "sparse"),
        ),
        (
            ALONE.format("sparse", "dense"),
            "gives cost, law of X, law of Y, rows of Y; AssertionError for rows of X",
            partial(tried.omd_gradients, "sparse", "dense"),
        ),
        (
            ALONE.format("sparse", "sparse"),
            "gives cost, law of X, law of Y; AssertionError for rows of X; AssertionError for rows of Y",
            partial(tried.omd_gradients, "sparse", "sparse"),
        ),
        (
            "sparse against sparse with y_is_sparse=False",
            "gives cost, law of X, law of Y, rows of Y; AssertionError for rows of X",
            partial(tried.omd_gradients, "sparse", "sparse", y_is_sparse=False),
        ),
        ("its gradients with raised limits beside ours, dense against sparse", "agree", tried.omd_beside_ours),
        ("a gradient in delta", "AssertionError", partial(tried.omd_parameter, "delta")),
        ("a gradient in sinkhorn_reg", "AssertionError", partial(tried.omd_parameter, "sinkhorn_reg")),
        ("tensors in double precision, stationary laws", "RuntimeError", partial(tried.omd_double, False)),
        ("tensors in double precision, laws given", "torch.float64", partial(tried.omd_double, True)),
        ("the same call five times", "5 values", tried.omd_twice),
        ("the README's chains, whose distance is 0.3402 ± 4e-7", "0.335", tried.omd_first),
        ("the same with its limits raised", "0.340", partial(tried.omd_first, **training.TIGHT)),
        ("discounted_wl_k, cost 1 everywhere, k = 1, delta = .2 (1 if weights sum to one)", "0.36", tried.omd_weights),
        ("pad_one_markov_to, which adds dummy states", "TypeError", tried.omd_pads),
        ("exact transport: sinkhorn_reg=0", "NaN", tried.omd_exact),
        (SNIPPET, "runs", partial(tried.moving, "From ot_markov_distances")),
        (METADATA, "CECILL-B; Python >=3.10", partial(tried.metadata, cases.OMD)),
    ),
    cases.POT: (
        ("gradients of emd2 on torch tensors", "gives cost, laws", tried.pot_emd),
        ("gradients of fused_gromov_wasserstein2", "gives cost, structures, laws", tried.pot_fused),
        ("the marginals of its plan", "p and q", tried.pot_marginals),
        ("Gromov-Wasserstein from random starts", "6 values", tried.pot_starts),
        ("solve_batch on two problems of one size", "2 values", partial(tried.pot_batch, (4, 4))),
        ("solve_batch on problems of different sizes", "ValueError", partial(tried.pot_batch, (4, 5))),
        (SNIPPET, "runs", partial(tried.moving, "From POT")),
        (METADATA, "MIT; Python >=3.7", partial(tried.metadata, cases.POT)),
    ),
    cases.PYOTC: (
        ("exact_otc on random chains of 4 and 5 states, beside ours", "the same", tried.otc_exact),
        ("exp_cost of entropic_otc(xi=10), beside ours at epsilon .1", "is our expected_cost:", tried.otc_entropic),
        ("exact_otc on the README's two-state chains (ours: 0.3333)", "0.3333", tried.otc_first),
        ("a gradient in the cost, by torch tensors", "RuntimeError", tried.otc_gradient),
        (SNIPPET, "runs", partial(tried.moving, "From pyotc")),
        (METADATA, "MIT license; Python >=3.10", partial(tried.metadata, cases.PYOTC)),
    ),
    cases.GRAKEL: (
        ("what the Weisfeiler-Lehman kernel returns", "a ndarray (2, 2)", tried.grakel_kernel),
        ("nodes with vectors (PropagationAttr)", "a ndarray", tried.grakel_vectors),
        ("labels of edges (NeighborhoodSubgraphPairwiseDistance)", "they count", tried.grakel_edges),
        (SNIPPET, "runs", partial(tried.moving, "From GraKeL")),
        (METADATA, "New BSD License; Python <3.13,>=3.9", partial(tried.metadata, cases.GRAKEL)),
    ),
    cases.WWL: (
        ("nodes with labels, graphs of different sizes", "a ndarray (2, 2)", partial(tried.wwl_kernel, False)),
        ("nodes with vectors", "a ndarray (2, 2)", partial(tried.wwl_kernel, True)),
        ("entropic transport: sinkhorn=True", "a ndarray (2, 2)", partial(tried.wwl_kernel, False, sinkhorn=True)),
        (METADATA, "MIT License; Python >=3.6", partial(tried.metadata, cases.WWL)),
    ),
}
CLAIMS = tuple(Claim(package, *each) for package, some in SAID.items() for each in some)
