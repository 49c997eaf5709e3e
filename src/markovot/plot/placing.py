"""Where to draw the states of a chain: positions in the plane, without random numbers."""

import numpy as np

from markovot._arrays import FloatArray, IntArray
from markovot.chains import MarkovChain


def bonds_of(chain: MarkovChain) -> IntArray:
    """The pairs of different states i < j between which the chain moves, in order."""
    if chain.is_sparse:
        rows = np.repeat(np.arange(chain.num_states), np.diff(chain.indptr.cpu().numpy()))
        pairs = np.stack([rows, chain.indices.cpu().numpy()], axis=1)[chain.values.detach().cpu().numpy() > 0]
    else:
        pairs = np.argwhere(chain.transition.detach().cpu().numpy() > 0)
    pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    return np.unique(pairs.reshape(-1, 2), axis=0).astype(np.int64)


def side_by_side(
    num_x: int, bonds_x: IntArray, num_y: int, bonds_y: IntArray, mass: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Positions of two chains: X upright on the left, Y on the right, turned so that aligned states are level."""
    place_x, place_y = upright(layout(num_x, bonds_x)), layout(num_y, bonds_y)
    place_y = place_y @ turn(place_x, place_y, mass)
    height = max(np.ptp(place_x[:, 1]), np.ptp(place_y[:, 1]))
    gap = max(3.0, 0.8 * height)
    place_x = place_x - [place_x[:, 0].max() + gap / 2, (place_x[:, 1].max() + place_x[:, 1].min()) / 2]
    place_y = place_y - [place_y[:, 0].min() - gap / 2, (place_y[:, 1].max() + place_y[:, 1].min()) / 2]
    return place_x, place_y


def upright(place: FloatArray) -> FloatArray:
    """Turn a drawing so that its longer axis is upright: lines to a drawing beside it then cross least of it."""
    _, axes = np.linalg.eigh(place.T @ place)
    turned: FloatArray = place @ (axes * np.where(axes.sum(0) < 0, -1.0, 1.0))
    return turned


def turn(place_x: FloatArray, place_y: FloatArray, mass: FloatArray) -> FloatArray:
    """The rotation or reflection R that minimises sum_ij mass_ij |x_i - y_j R|^2: weighted orthogonal Procrustes."""
    left, _, right = np.linalg.svd(place_y.T @ mass.T @ place_x)
    best: FloatArray = left @ right
    return best


def layout(num_states: int, bonds: IntArray) -> FloatArray:
    """Centred positions with bonds of length about one; disconnected pieces stand side by side."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components, shortest_path

    graph = coo_array((np.ones(len(bonds)), (bonds[:, 0], bonds[:, 1])), shape=(num_states, num_states)).tocsr()
    num_pieces, piece_of = connected_components(graph, directed=False)
    steps = shortest_path(graph, directed=False, unweighted=True)
    place = np.zeros((num_states, 2))
    edge = 0.0
    for piece in range(num_pieces):
        members = np.flatnonzero(piece_of == piece)
        local = _least_stress(steps[np.ix_(members, members)])
        local = local - local.min(0)
        place[members] = local + np.array([edge, 0.0])
        edge += np.ptp(local[:, 0]) + 1.5
    return place - place.mean(0)


def _least_stress(steps: FloatArray, num_iter: int = 300) -> FloatArray:
    """The positions with the least stress sum_ij (|x_i - x_j| / t_ij - 1)^2, from a few fixed starts.

    Each start is improved by majorisation (SMACOF), x <- V^+ B(x) x, which needs no step size and no random
    numbers.
    """
    num = len(steps)
    if num == 1:
        return np.zeros((1, 2))
    # States two bonds apart stand at sqrt(3) bonds, as in a honeycomb: the angle at which rings and chains
    # look right.
    target = np.where(steps > 1, np.sqrt(3) / 2 * steps, steps) + np.eye(num)
    weight = (1 - np.eye(num)) / target**2
    inverse = np.linalg.pinv(np.diag(weight.sum(1)) - weight)

    def distances(place: FloatArray) -> FloatArray:
        return np.linalg.norm(place[:, None] - place[None], axis=-1) + np.eye(num)

    best, least = np.zeros((num, 2)), np.inf
    for place in _starts(target - np.eye(num)):
        for _ in range(num_iter):
            pull = -weight * target / np.maximum(distances(place), 1e-9)
            place = inverse @ ((pull - np.diag(pull.sum(1))) @ place)
        stress = (weight * (distances(place) - target) ** 2).sum()
        if stress < least * (1 - 1e-6):  # the first of equals, whatever the rounding
            best, least = place, stress
    return best


def _starts(target: FloatArray) -> list[FloatArray]:
    """A circle, and classical scaling, tilted slightly into further axes so that mirror images do not coincide."""
    num = len(target)
    angle = 2 * np.pi * np.arange(num) / num
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * target.max() / 2
    square = target**2
    centred = square - square.mean(0) - square.mean(1)[:, None] + square.mean()
    value, vector = np.linalg.eigh(-centred / 2)
    axes = np.zeros((num, 6))
    kept = min(num, 6)
    axes[:, :kept] = (vector * np.sqrt(np.maximum(value, 0)))[:, ::-1][:, :kept]
    tilts = [(2, 3), (3, 2), (2, 4), (4, 2), (3, 4), (4, 3), (4, 5), (5, 4)]
    return [circle] + [axes[:, :2] + 0.5 * axes[:, tilt] + 0.01 * circle for tilt in tilts]
