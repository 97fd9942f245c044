"""A toy's weights, directions and loss as flat NumPy arrays, for transcriptions of equations."""

import numpy as np

from tests.support.toys import Toy
from zocore.directions.laws import Direction, Gaussian
from zocore.noise.addressed import Key


def flat_loss(toy: Toy):
    """The mean loss as a function of the one weight matrix of a toy, flattened, in NumPy alone."""
    x, y, kind = toy.model.inputs.numpy(), toy.model.targets.numpy(), toy.model.kind

    def loss(theta: np.ndarray) -> float:
        out = x @ theta.reshape(y.shape[1], x.shape[1]).T
        match kind:
            case "quadratic":
                return float((0.5 * (out - y) ** 2).sum(1).mean())
            case "linear":
                return float((out * y).sum(1).mean())
            case "cubic":
                return float(((out - y) ** 3).sum(1).mean())
        return float((np.log1p((out - y) ** 2) + np.sin(out)).sum(1).mean())

    return loss


def z_of(toy: Toy, key: Key, law=None) -> np.ndarray:
    return Direction(key, law or Gaussian()).tensor(toy.leaves[0]).flatten().numpy()


def theta_of(toy: Toy) -> np.ndarray:
    return toy.leaves[0].tensor.flatten().numpy().copy()
