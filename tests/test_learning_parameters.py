"""Chains made of parameters: what they hold to whatever the parameters are, and their gradients."""

import copy
import io

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from markovot import MarkovChain, discounted_wl, stationary_distribution
from markovot.costs import Euclidean, ZeroOne
from markovot.learning import LabelledChain, TransitionMatrix
from markovot.learning.parameters import INITIAL_SCALE
from solving import csr

# A star with a tail, whose edges can be walked both ways, and the same with some steps of one direction only.
SYMMETRIC = torch.tensor([[0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 1, 0]]).bool()
DIRECTED = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]).bool()
VARIANTS = {
    "dense": {},
    "lazy": {"laziness": 0.3},
    "reversible": {"reversible": True},
    "reversible and lazy": {"reversible": True, "laziness": 0.3},
    "sparse": {"support": DIRECTED},
    "sparse and lazy": {"support": DIRECTED, "laziness": 0.3},
    "sparse and reversible": {"support": SYMMETRIC, "reversible": True},
    "sparse, reversible and lazy": {"support": SYMMETRIC, "reversible": True, "laziness": 0.3},
}
every_variant = pytest.mark.parametrize("name", VARIANTS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(name: str, *, spread: float = 1.0, **options) -> TransitionMatrix:
    """A module of 5 states whose logits have about this spread."""
    module = TransitionMatrix(5, generator=seeded(), **VARIANTS[name], **options)
    with torch.no_grad():
        module.logits.mul_(spread / INITIAL_SCALE)
    return module


def matrix(module: TransitionMatrix) -> torch.Tensor:
    return module().to_dense()


def slow(module: TransitionMatrix, name: str) -> torch.Tensor:
    """The formula of the docstring, entry by entry."""
    options = VARIANTS[name]
    inside = options.get("support", torch.ones(5, 5, dtype=torch.bool))
    lazy = options.get("laziness", 0.0)
    theta, given = {}, iter(module.logits.tolist() if module.logits.dim() == 1 else module.logits.flatten().tolist())
    for i in range(5):
        for j in range(5):
            if inside[i, j]:
                theta[i, j] = theta[j, i] if options.get("reversible") and j < i else next(given)
    assert next(given, None) is None
    result = lazy * torch.eye(5, dtype=torch.float64)
    for (i, j), value in theta.items():
        result[i, j] += (1 - lazy) * np.exp(value) / sum(np.exp(v) for (k, _), v in theta.items() if k == i)
    return result


@every_variant
def test_it_is_the_matrix_of_the_formula(name: str) -> None:
    module = make(name)
    assert_close(matrix(module).detach(), slow(module, name), rtol=1e-13, atol=1e-15)


@every_variant
@pytest.mark.parametrize("spread", [1.0, 300.0, 1e4])
def test_rows_are_probabilities_at_any_range(name: str, spread: float) -> None:
    module = make(name, spread=spread)
    found = module()
    assert found.is_sparse == ("sparse" in name)
    assert_close(found.to_dense().sum(1).detach(), torch.ones(5, dtype=torch.float64))
    assert bool((found.to_dense() >= 0).all())
    # With logits this far apart probabilities vanish, but the rows stay valid.
    MarkovChain.from_transitions(found, initial="uniform")
    (found.to_dense() ** 2).sum().backward()
    assert bool(module.logits.grad.isfinite().all())


@every_variant
def test_first_and_second_derivatives(name: str) -> None:
    module = make(name)

    def rows(logits: torch.Tensor) -> torch.Tensor:
        found = torch.func.functional_call(module, {"logits": logits})
        return found.coalesce().values() if found.is_sparse else found

    logits = module.logits.detach().clone().requires_grad_()
    torch.autograd.gradcheck(rows, (logits,))
    if "sparse" not in name:  # torch's sparse tensors have no second derivative; the stored rows below do
        torch.autograd.gradgradcheck(rows, (logits,))


@pytest.mark.parametrize("name", ["sparse and lazy", "sparse, reversible and lazy"])
def test_second_derivatives_of_the_stored_rows(name: str) -> None:
    module = make(name)

    class Values(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self) -> torch.Tensor:
            return self.inner.rows().values

    holder = Values()
    logits = module.logits.detach().clone().requires_grad_()
    torch.autograd.gradgradcheck(lambda t: torch.func.functional_call(holder, {"inner.logits": t}), (logits,))


@pytest.mark.parametrize("name", [name for name in VARIANTS if "sparse" in name])
def test_a_sparse_matrix_is_of_the_support_and_the_diagonal_if_lazy(name: str) -> None:
    module = make(name)
    wanted = VARIANTS[name]["support"] | (torch.eye(5).bool() & ("lazy" in name))
    found = module()
    assert found.is_coalesced()
    assert found._nnz() == int(wanted.sum())
    assert_close(found.to_dense() > 0, wanted)
    assert_close(LabelledChain(5, transition=module)().to_dense().transition, found.to_dense())
    # The diagonal holds laziness alone where the support leaves it out.
    if name == "sparse and lazy":
        assert found.to_dense()[0, 0].item() == 0.3


@pytest.mark.parametrize("form", ["tensor", "coo", "csr", "array", "scipy", "float", "sparse bool"])
def test_supports_in_every_form(form: str) -> None:
    import scipy.sparse

    forms = {
        "tensor": DIRECTED,
        "coo": DIRECTED.double().to_sparse_coo(),
        "csr": csr(DIRECTED.double()),
        "array": DIRECTED.numpy(),
        "scipy": scipy.sparse.coo_array(DIRECTED.numpy().astype(int)),
        "float": 0.3 * DIRECTED.double(),
        "sparse bool": DIRECTED.to_sparse_coo(),
    }
    module = TransitionMatrix(5, support=forms[form], generator=seeded())
    assert_close(module().to_dense(), TransitionMatrix(5, support=DIRECTED, generator=seeded())().to_dense())


def test_a_full_support_is_the_dense_matrix() -> None:
    full = torch.ones(4, 4, dtype=torch.bool)
    for options in ({}, {"reversible": True}, {"reversible": True, "laziness": 0.1}):
        dense = TransitionMatrix(4, generator=seeded(3), **options)
        sparse = TransitionMatrix(4, support=full, generator=seeded(3), **options)
        assert_close(sparse().to_dense(), dense())


@pytest.mark.parametrize("name", [name for name in VARIANTS if "reversible" in name])
def test_reversible_chains_are_in_detailed_balance(name: str) -> None:
    module = make(name)
    law = module.stationary()
    flows = law[:, None] * matrix(module)
    assert_close(flows, flows.T)
    assert_close(law, stationary_distribution(matrix(module)))
    torch.autograd.gradcheck(
        lambda t: torch.func.functional_call(_Stationary(module), {"inner.logits": t}),
        (module.logits.detach().clone().requires_grad_(),),
    )


class _Stationary(torch.nn.Module):
    def __init__(self, inner: TransitionMatrix) -> None:
        super().__init__()
        self.inner = inner

    def forward(self) -> torch.Tensor:
        return self.inner.stationary()


def test_a_chain_that_is_not_reversible_is_not_so_by_chance() -> None:
    rows = matrix(make("dense")).detach()
    flows = stationary_distribution(rows)[:, None] * rows
    assert float((flows - flows.T).abs().max()) > 1e-3


def test_a_stationary_law_is_refused_where_it_is_not_unique() -> None:
    apart = torch.block_diag(torch.ones(2, 2), torch.ones(1, 1)).bool()
    with pytest.raises(ValueError, match=r"stationary law is not unique, .* the states \{0, 1\} and \{2\}"):
        TransitionMatrix(3, support=apart, reversible=True).stationary()
    with pytest.raises(ValueError, match=r"stationary\(\): only a reversible chain .* Use reversible=True"):
        TransitionMatrix(3).stationary()


# --- random numbers
def test_seeds_decide_and_dtypes_do_not() -> None:
    one, other = (TransitionMatrix(20, generator=seeded(7)) for _ in range(2))
    assert_close(one.logits, other.logits, rtol=0, atol=0)
    single = TransitionMatrix(20, generator=seeded(7), dtype=torch.float32)
    assert single().dtype == torch.float32
    assert_close(single.logits, one.logits.float())
    assert float((one.logits - TransitionMatrix(20, generator=seeded(8)).logits).detach().abs().max()) > 0.1
    assert float(one.logits.detach().std()) == pytest.approx(INITIAL_SCALE, rel=0.1)
    assert one().is_sparse is False


def test_without_a_generator_torch_s_own_is_used() -> None:
    state = torch.get_rng_state()
    try:
        torch.manual_seed(11)
        one = LabelledChain(4, num_features=2)
        torch.manual_seed(11)
        other = LabelledChain(4, num_features=2)
    finally:
        torch.set_rng_state(state)
    assert_close(one.features, other.features, rtol=0, atol=0)
    assert_close(one.transition.logits, other.transition.logits, rtol=0, atol=0)


# --- saved, copied, moved
@every_variant
def test_state_dicts_and_copies(name: str) -> None:
    module = make(name)
    other = TransitionMatrix(5, generator=seeded(1), **VARIANTS[name])
    assert float((matrix(other) - matrix(module)).detach().abs().max()) > 1e-3
    store = io.BytesIO()
    torch.save(module.state_dict(), store)
    store.seek(0)
    other.load_state_dict(torch.load(store))
    assert_close(matrix(other), matrix(module), rtol=0, atol=0)
    assert_close(matrix(copy.deepcopy(module)), matrix(module), rtol=0, atol=0)
    assert matrix(copy.deepcopy(module).float()).dtype == torch.float32


def test_a_state_dict_brings_its_support() -> None:
    # As many entries, at other places.
    module, other = (TransitionMatrix(5, support=support) for support in (DIRECTED, DIRECTED.roll(1, 0)))
    other.load_state_dict(module.state_dict())
    assert_close(matrix(other), matrix(module), rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"size mismatch for indices: .*torch.Size\(\[9\]\)"):
        TransitionMatrix(5, support=torch.ones(5, 5)).load_state_dict(module.state_dict())


def test_print() -> None:
    assert repr(make("sparse, reversible and lazy")) == (
        "TransitionMatrix(5, 9 entries, reversible, laziness=0.3, float64)"
    )
    module = LabelledChain(2, features=torch.zeros(2, 3), dtype=torch.float32, initial="learned")
    assert "2, features=(2, 3) (learned), initial='learned'" in repr(module)
    assert "(transition): TransitionMatrix(2, dense, laziness=0, float32)" in repr(module)


# --- a given start
@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_starts_at_a_given_matrix(name: str, dtype: torch.dtype) -> None:
    wanted = make(name).to(dtype)().detach()
    options = {key: value for key, value in VARIANTS[name].items() if key != "support"}
    module = TransitionMatrix.from_transition(wanted, **options)
    found = module()
    assert found.dtype == dtype
    assert_close(found.to_dense().detach(), wanted.to_dense())
    assert found.is_sparse == wanted.is_sparse
    if wanted.is_sparse:
        assert found._nnz() == wanted._nnz()
        # The support, given with a dense matrix, says what is stored.
        dense = TransitionMatrix.from_transition(wanted.to_dense(), support=VARIANTS[name]["support"], **options)
        assert_close(dense().to_dense(), found.to_dense())
        assert dense().is_sparse


def test_scipy_and_numpy_matrices_are_a_start_too() -> None:
    import scipy.sparse

    walk = DIRECTED.double() / DIRECTED.double().sum(1, keepdim=True)
    found = TransitionMatrix.from_transition(scipy.sparse.csr_array(walk.numpy()))
    assert_close(found().to_dense().detach(), walk)
    full = np.array([[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(TransitionMatrix.from_transition(full)().detach(), full)


def test_pseudo_counts() -> None:
    walk = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)
    found = TransitionMatrix.from_transition(walk, pseudo_count=0.1)().detach()
    assert_close(found, (walk + 0.1) / 1.3)
    path = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]]).bool()
    found = TransitionMatrix.from_transition(walk, pseudo_count=0.1, support=path)().to_dense().detach()
    wanted = (walk + 0.1) * path
    assert_close(found, wanted / wanted.sum(1, keepdim=True))
    module = TransitionMatrix.from_transition(walk, pseudo_count=0.1, reversible=True)
    law = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert_close(module().detach(), (walk + 0.3 * law) / 1.3)
    assert_close(module.stationary().detach(), law)


def test_small_probabilities_beside_laziness_are_kept() -> None:
    rows = torch.tensor([[0.6, 0.4 - 1e-9, 1e-9], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], dtype=torch.float64)
    rows[1, 1] += 2e-16  # rounding, which is not a step
    support = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    module = TransitionMatrix.from_transition(rows, laziness=0.5, support=support)
    assert len(module.logits) == 8
    assert_close(module().to_dense().detach(), rows, rtol=1e-12, atol=0)


STARTS = {
    "zeros": (
        {"transition": [[0.0, 1.0], [0.5, 0.5]]},
        r"transition: entry \(0, 0\) is 0, which a softmax never is\. Give support=transition > 0 .* or a pseudo_count",
    ),
    "zeros in the support": (
        {"transition": [[0.0, 1.0], [0.5, 0.5]], "support": torch.ones(2, 2)},
        r"transition: entry number 0 of the support is 0, .*Take it out of the support, or give a pseudo_count",
    ),
    "beyond the support": (
        {"transition": [[0.5, 0.5], [0.5, 0.5]], "support": torch.eye(2)},
        r"transition: entry \(0, 1\) is 0\.5, but is not in the support",
    ),
    "not reversible": (
        {"transition": [[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]], "reversible": True},
        r"transition: it is not reversible: the stationary flow from 0 to 1 is 0\.266667, that from 1 to 0 is 0\.0333",
    ),
    "too lazy": (
        {"transition": [[0.5, 0.5], [0.8, 0.2]], "laziness": 0.3},
        r"laziness: 0\.3 is more than 0\.2, the probability with which state 1 stays",
    ),
    "a batch": (
        {"transition": [[[0.5, 0.5], [0.5, 0.5]]]},
        r"transition: a batch of shape \(1,\)\. Give a single matrix",
    ),
    "not a law": ({"transition": [[0.5, 0.4], [0.5, 0.5]]}, r"transition: row 0 sums to 0\.9, not 1"),
    "negative pseudo-count": (
        {"transition": [[0.5, 0.5], [0.5, 0.5]], "pseudo_count": -1.0},
        r"pseudo_count: -1\.0 is out of range\. It must be at least 0",
    ),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts_that_cannot_be_met(name: str) -> None:
    options, message = STARTS[name]
    transition = torch.tensor(options["transition"], dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        TransitionMatrix.from_transition(transition, **{k: v for k, v in options.items() if k != "transition"})


# --- what is refused
REFUSED = {
    "no states": ({"n_states": 0}, ValueError, "n_states: 0 is less than 1"),
    "half a state": ({"n_states": 2.5}, TypeError, "n_states: expected an integer, got float"),
    "half precision": ({"n_states": 2, "dtype": torch.float16}, TypeError, "dtype: torch.float16 is not supported"),
    "never moves": ({"n_states": 2, "laziness": 1.0}, ValueError, "laziness: 1 leaves nothing to learn"),
    "negative laziness": ({"n_states": 2, "laziness": -0.1}, ValueError, "laziness: -0.1 is out of range"),
    "an empty row": (
        {"n_states": 2, "support": torch.tensor([[1, 1], [0, 0]])},
        ValueError,
        r"support: row 1 is empty, so that state 1 could go nowhere\. .*the one on the diagonal",
    ),
    "one way only": (
        {"n_states": 5, "support": DIRECTED, "reversible": True},
        ValueError,
        r"support: it has the step \(0, 1\), but not \(1, 0\)\. .*support \| support\.T",
    ),
    "another size": (
        {"n_states": 4, "support": DIRECTED},
        ValueError,
        r"support: it is for \(5,\) states, not for 4\. Give a mask \(4, 4\)",
    ),
    "a batch of supports": ({"n_states": 5, "support": DIRECTED.expand(2, 5, 5)}, ValueError, r"support: .*\(2, 5\)"),
    "not a matrix": ({"n_states": 2, "support": "all"}, TypeError, "support: expected a torch tensor or a NumPy array"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_transition_matrices_that_are_refused(name: str) -> None:
    options, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        TransitionMatrix(**options)


@every_variant
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_spoilt_logits_are_named(name: str, value: float) -> None:
    module = make(name)
    with torch.no_grad():
        module.logits.view(-1)[3] = value
    place = r"\(0, 3\)" if module.logits.dim() == 2 else "3"
    with pytest.raises(ValueError, match=rf"logits: entry {place} is {value}\. An earlier step spoilt it"):
        module()


def test_a_row_of_minus_infinities_is_named() -> None:
    module = TransitionMatrix(2)
    with torch.no_grad():
        module.logits[:, 0] = -torch.inf
    assert_close(module().detach(), torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
    with torch.no_grad():
        module.logits[1] = -torch.inf
    with pytest.raises(ValueError, match="logits: some row has no finite entry"):
        module()


# --- labelled chains
TARGET = MarkovChain.from_transitions(
    torch.tensor([[0.2, 0.8, 0.0], [0.3, 0.3, 0.4], [0.5, 0.0, 0.5]], dtype=torch.float64),
    features=torch.tensor([[0.0, 0.0], [1.0, 0.5], [2.0, -1.0]], dtype=torch.float64),
)
LAW = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.0], dtype=torch.float64)


@every_variant
@pytest.mark.parametrize("initial", ["uniform", "stationary", "learned", "given"])
def test_a_labelled_chain_is_the_checked_chain_of_its_parameters(name: str, initial: str) -> None:
    law = LAW if initial == "given" else initial
    module = LabelledChain(5, num_features=2, transition=make(name), initial=law, generator=seeded(5))
    if initial == "learned":
        with torch.no_grad():
            module.initial_logits.copy_(LAW.roll(2))
    plain = {"learned": LAW.roll(2).softmax(0), "given": LAW}.get(initial, initial)
    checked = MarkovChain.from_transitions(module.transition(), initial=plain, features=module.features)
    setting = {"cost": Euclidean(), "delta": 0.3, "epsilon": 0.1}
    found, wanted = (discounted_wl(chain, TARGET, **setting) for chain in (module(), checked))
    assert_close(found.value, wanted.value)
    gradients = torch.autograd.grad(found.value, list(module.parameters()))
    parameters = [p for p in module.parameters() if p is not module.initial_logits]
    by_hand = dict(zip(parameters, torch.autograd.grad(wanted.value, parameters), strict=True))
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        if parameter in by_hand:
            assert_close(gradient, by_hand[parameter], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("initial", ["stationary", "learned"])
def test_the_gradient_of_the_distance_in_all_parameters(initial: str) -> None:
    module = LabelledChain(
        4, num_features=2, initial=initial, generator=seeded(2),
        transition=TransitionMatrix(4, reversible=True, laziness=0.1, generator=seeded(1)),
    )  # fmt: skip
    names = [name for name, _ in module.named_parameters()]
    assert ("initial_logits" in names) == (initial == "learned")

    def value(*tensors: torch.Tensor) -> torch.Tensor:
        chain = torch.func.functional_call(module, dict(zip(names, tensors, strict=True)))
        accuracy = {"rtol": 1e-11}
        return discounted_wl(chain, TARGET, Euclidean(), delta=0.3, epsilon=0.2, **accuracy).value

    torch.autograd.gradcheck(
        value, tuple(p.detach().clone().requires_grad_() for p in module.parameters()), eps=1e-5, atol=1e-6
    )


def test_features_of_every_kind() -> None:
    vectors = torch.rand(3, 2, generator=seeded())
    module = LabelledChain(3, features=vectors)
    assert isinstance(module.features, torch.nn.Parameter)
    assert module.features.dtype == torch.float64
    with torch.no_grad():
        module.features.add_(1.0)
    assert float(vectors.max()) < 1  # what was given is not written to
    fixed = LabelledChain(3, features=vectors.double(), learn_features=False)
    assert [name for name, _ in fixed.named_parameters()] == ["transition.logits"]
    assert_close(fixed().features, vectors.double())
    assert "features" in fixed.state_dict()
    assert_close(LabelledChain(3, features=[1.0, 2.0, 4.0])().features.detach().tolist(), [1.0, 2.0, 4.0])
    labels = LabelledChain(3, features=["C", "N", "C"], learn_features=False)()
    assert labels.features.dtype == torch.int64
    other = MarkovChain.from_transitions(torch.eye(1, dtype=torch.float64), features=["C"])
    assert discounted_wl(labels, other, ZeroOne(), delta=1.0, epsilon=0.1).value.item() == pytest.approx(1 / 3)
    assert LabelledChain(3)().features is None


def test_features_drawn_at_random_are_standard_normal() -> None:
    features = LabelledChain(500, num_features=3, generator=seeded()).features.detach()
    assert features.shape == (500, 3)
    assert_close(features.std(0), torch.ones(3, dtype=torch.float64), rtol=0.1, atol=0)


CHAINS = {
    "labels to learn": (
        {"features": ["C", "N"]},
        TypeError,
        r"features: labels cannot be learned\. Use learn_features",
    ),
    "features twice": (
        {"features": torch.zeros(2, 1), "num_features": 1},
        ValueError,
        "num_features: features are given",
    ),
    "no features": ({"num_features": 0}, ValueError, "num_features: 0 is less than 1"),
    "too many": ({"features": torch.zeros(3, 1)}, ValueError, r"features: shape \(3, 1\) does not fit \(2,\)"),
    "a wrong law": ({"initial": torch.ones(2, dtype=torch.float64)}, ValueError, "initial: it sums to 2, not 1"),
    "a law in another dtype": (
        {"initial": torch.ones(2) / 2},
        TypeError,
        "initial: dtype torch.float32 is not that of",
    ),
    "an unknown law": (
        {"initial": "random"},
        ValueError,
        "initial: 'random' is not 'uniform', 'stationary', 'learned'",
    ),
    "a plain matrix": (
        {"transition": torch.eye(2)},
        TypeError,
        r"transition: expected a TransitionMatrix, got Tensor\. .*from_transition.*requires_grad_\(False\)",
    ),
    "another size": ({"transition": TransitionMatrix(3)}, ValueError, "transition: it has 3 states, not n_states = 2"),
    "another dtype": (
        {"dtype": torch.float32, "transition": TransitionMatrix(2)},
        TypeError,
        "transition: dtype torch.f",
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_labelled_chains_that_are_refused(name: str) -> None:
    options, error, message = CHAINS[name]
    with pytest.raises(error, match=message):
        LabelledChain(2, **options)


def test_half_precision_and_spoilt_laws_are_refused_when_used() -> None:
    with pytest.raises(TypeError, match=r"logits: dtype torch.bfloat16 is not supported, .*logits\.double\(\)"):
        LabelledChain(2).bfloat16()()
    module = LabelledChain(2, initial="learned")
    with torch.no_grad():
        module.initial_logits[1] = torch.nan
    with pytest.raises(ValueError, match="initial_logits: entry 1 is nan"):
        module()
