"""Densities known in closed form, as histograms."""

import math

import numpy as np

from onnxrd.rate_distortion import Histogram


def cells(distribution, limit, count=256):
    """A density as the probabilities of equal cells between -limit and limit."""
    edges = np.linspace(-limit, limit, count + 1)
    return Histogram((edges[1:] + edges[:-1]) / 2, np.diff([distribution(x) for x in edges]))


def gaussian(x):
    return (1 + math.erf(x / math.sqrt(2))) / 2


def laplacian(x):
    return math.exp(x) / 2 if x < 0 else 1 - math.exp(-x) / 2
