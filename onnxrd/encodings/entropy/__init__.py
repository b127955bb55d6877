"""Entropy codes that standard operators decode: many weights in one stream of bits.

A Huffman decoder is a finite automaton: its states are the inner nodes of the code's tree, its
input is a byte, its output the symbols whose last bit lies in that byte. So is that of asymmetric
numeral systems, with more states and .003 to .02 bit from the entropy, where code words of single
codes lose .04 to .1. The bits are cut into lanes of equally many bytes, each beginning with a new
symbol, and all lanes take their k-th byte in the same operator: two small operators a step
(`automaton`), whatever the number of weights. A symbol stands for a run of codes, so that the bits
come near the entropy below one bit a weight, too (`symbols`, `code`, `numerals`, `lanes`). Weights
share a stream where that is cheaper than a table and a decoder each (`stream`, `grouping`).
"""

from onnxrd.encodings.encoding import Encoding
from onnxrd.encodings.entropy.estimate import estimated_nbytes
from onnxrd.encodings.entropy.grid import spacing
from onnxrd.encodings.entropy.grouping import encode, entropy_coded
from onnxrd.encodings.entropy.several import in_turns
from onnxrd.encodings.entropy.stream import NAME, OPSET, Book, accepts

ENTROPY = Encoding(NAME, accepts, encode)
"""A stream for a single weight."""

__all__ = [
    "ENTROPY",
    "OPSET",
    "Book",
    "accepts",
    "entropy_coded",
    "estimated_nbytes",
    "in_turns",
    "spacing",
]
