"""Derivatives of each sample's cross-entropy by brute force: differences in float64."""

import numpy as np

from tests.importance.brute_force import Network, _log_softmax


def losses(outputs, labels, *, temperature=1.0, probabilities=False):
    """[N], nats; mean over positions where a sample has several. Classes come last."""
    log = np.log(outputs) if probabilities else _log_softmax(outputs / temperature)
    chosen = np.take_along_axis(log, labels.reshape(*log.shape[:-1], 1), -1)
    return -chosen.reshape(len(log), -1).mean(1)


def derivatives(path, name, feeds, labels, *, output="y", step=1e-4, **loss):
    """(∂L, ∂²L) of every sample, [N, *weight] each, by central differences."""
    network = Network(path, name, double=True)
    (still,) = network(feeds, 0, 0.0, [output])
    middle = losses(still, labels, **loss)
    first, second = [], []
    for flat in range(network.weight.size):
        ahead, back = (
            losses(network(feeds, flat, s, [output])[0], labels, **loss) for s in (step, -step)
        )
        first.append((ahead - back) / (2 * step))
        second.append((ahead - 2 * middle + back) / step**2)
    shape = (len(middle), *network.weight.shape)
    return np.array(first).T.reshape(shape), np.array(second).T.reshape(shape)
