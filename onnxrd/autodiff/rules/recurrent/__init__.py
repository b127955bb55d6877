"""LSTM, GRU and RNN.

Nothing but the states goes through time one step after the other. So: the products with the input
first, for all times at once; then a scan that repeats the forward pass and keeps what the gates
were fed; their derivatives, for all times at once; a second scan, back in time, for the cotangents
of the gates; and from these, again at once, the gradients of input, weights and biases. For each
sample the gradient of a weight is then one product [gates, T] · [T, inputs].
"""

from onnxrd.autodiff.rules.recurrent import gru, lstm, rnn

__all__ = ["gru", "lstm", "rnn"]
