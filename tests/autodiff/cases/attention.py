"""What transformers are made of besides matrix products."""

import numpy as np

from tests.autodiff.cases.case import Case, normal

_Q, _K, _V = normal(2, 4, 3, 8), normal(2, 4, 5, 8, seed=2), normal(2, 4, 5, 6, seed=3)
_FLAT = (normal(2, 3, 32), normal(2, 5, 32, seed=2), normal(2, 5, 24, seed=3))
_SHARED = (normal(2, 2, 5, 8, seed=2), normal(2, 2, 5, 6, seed=3))
_HEADS = {"q_num_heads": 4, "kv_num_heads": 4}
_SEEN = np.arange(15).reshape(3, 5) % 4 < 3
_PAST = (normal(2, 4, 2, 8, seed=4), normal(2, 4, 2, 6, seed=5))
_ANGLES = normal(2, 5, 4, seed=6)
_TURN = (np.cos(_ANGLES), np.sin(_ANGLES))
_PLACES = np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]])
_TABLES = (np.cos(normal(7, 4, seed=7)), np.sin(normal(7, 4, seed=7)))


CASES = [
    Case("Attention", (_Q, _K, _V), opset=23),
    Case("Attention", (_Q, _K, _V, normal(3, 5, seed=4)), {"scale": 0.3}, opset=23),
    Case("Attention", (_Q, _K, _V, _SEEN), {"softcap": 2.0}, opset=24),
    Case("Attention", (_Q, _K, _V), {"is_causal": 1}, opset=23),
    Case("Attention", (_Q, *_SHARED), opset=24),
    Case("Attention", _FLAT, _HEADS, opset=23),
    Case("Attention", (_Q, _K, _V, None, *_PAST), opset=24, outputs=3, differentiated=(0, 1, 2)),
    Case("RotaryEmbedding", (normal(2, 3, 5, 8), *_TURN), opset=23),
    Case("RotaryEmbedding", (normal(2, 3, 5, 8), *_TURN), {"interleaved": 1}, opset=23),
    Case("RotaryEmbedding", (normal(2, 5, 24), *_TURN), {"num_heads": 3}, opset=23),
    Case("RotaryEmbedding", (normal(2, 3, 5, 8), *_TABLES, _PLACES), opset=23),
    Case(
        "RotaryEmbedding",
        (normal(2, 3, 5, 12), *_TURN),
        {"rotary_embedding_dim": 8},
        opset=24,
    ),
]
