"""The operators that onnxruntime's optimizer makes."""

import numpy as np

from tests.autodiff.cases.case import Case, ints, normal, spaced


def _fused(op, inputs, attributes=None, **options):
    return Case(op, inputs, attributes or {}, domain="com.microsoft", **options)


_IMAGE, _KERNEL, _BIAS = spaced(2, 3, 5, 5), normal(4, 3, 3, 3, seed=2), normal(4, seed=3)
_PADS = {"pads": [1, 1, 1, 1]}
_ROWS, _MATRIX = normal(3, 4), normal(4, 5, seed=2)
_TEXT, _SKIP, _SCALE, _SHIFT = (
    normal(2, 3, 8),
    normal(2, 3, 8, seed=2),
    normal(8),
    normal(8, seed=3),
)
_PROJECTION = (normal(8, 24, seed=2) / 2, normal(24, seed=3))
_QKV = (normal(2, 3, 8), normal(2, 5, 8, seed=2), normal(2, 5, 12, seed=3))
_SELF = (normal(2, 3, 8), normal(2, 3, 8, seed=2), normal(2, 3, 8, seed=3))
_PAST = normal(2, 2, 2, 4, 4, seed=6)
_ANGLES = normal(9, 4, seed=6)
_TABLES = (np.cos(_ANGLES), np.sin(_ANGLES))
_IDS, _KINDS = (
    np.array([[1, 3, 3], [0, 1, 6]], np.int32),
    np.array([[0, 0, 1], [0, 1, 1]], np.int32),
)
_EMBEDDINGS = (normal(7, 8), normal(4, 8, seed=2), normal(2, 8, seed=3))
_NO_KINDS = (_IDS, None, *_EMBEDDINGS[:2], None, _SCALE, _SHIFT)
_SEEN = np.array([[1, 1, 0], [1, 1, 1]], np.int32)

CASES = [
    _fused("FusedConv", (_IMAGE, _KERNEL, _BIAS), {"activation": "Relu", **_PADS}),
    _fused("FusedConv", (_IMAGE, _KERNEL), {"activation": "Tanh", "strides": [2, 2]}),
    _fused(
        "FusedConv",
        (_IMAGE, _KERNEL, _BIAS, normal(2, 4, 5, 5)),
        {"activation": "LeakyRelu", "activation_params": [0.3], **_PADS},
    ),
    _fused(
        "FusedConv",
        (_IMAGE, _KERNEL),
        {"activation": "Clip", "activation_params": [-1.2, 2.5]},
        opset=10,
    ),
    _fused(
        "FusedConv",
        (_IMAGE, _KERNEL),
        {"activation": "HardSigmoid", "activation_params": [0.1, 0.4]},
    ),
    _fused("FusedGemm", (_ROWS, _MATRIX, normal(5)), {"activation": "Sigmoid", "alpha": 0.5}),
    _fused(
        "FusedGemm",
        (_ROWS, _MATRIX.T.copy()),
        {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.3},
    ),
    _fused("FusedMatMul", (normal(2, 3, 4), _MATRIX), {"alpha": 0.3}),
    _fused("FusedMatMul", (normal(2, 4, 3), normal(2, 5, 4)), {"transA": 1, "transB": 1}),
    _fused(
        "FusedMatMul",
        (normal(4, 2, 2, 3), normal(2, 2, 4, 5)),
        {"transBatchA": 1, "transA": 1},
    ),
    _fused(
        "FusedMatMul",
        (normal(3, 2, 2, 4), normal(4, 2, 2, 5)),
        {"transBatchA": 1, "transBatchB": 1},
    ),
    _fused("BiasGelu", (_TEXT, _SHIFT)),
    _fused("FastGelu", (_TEXT, _SHIFT)),
    _fused("SkipLayerNormalization", (_TEXT, _SKIP, _SCALE, _SHIFT)),
    _fused(
        "SkipLayerNormalization",
        (_TEXT, _SKIP[:1], _SCALE, _SHIFT, normal(8, seed=5)),
        {"epsilon": 0.1},
        outputs=4,
        differentiated=(0, 3),
        absent=(1, 2),
    ),
    _fused("SkipSimplifiedLayerNormalization", (_TEXT, _SKIP, _SCALE)),
    _fused(
        "SkipSimplifiedLayerNormalization",
        (_TEXT, _SKIP, _SCALE, _SHIFT),
        {"epsilon": 0.1},
        outputs=4,
        differentiated=(0, 3),
        absent=(1, 2),
    ),
    _fused(
        "EmbedLayerNormalization",
        (_IDS, _KINDS, *_EMBEDDINGS, _SCALE, _SHIFT, _SEEN),
        outputs=2,
        fixed=True,
    ),
    _fused("EmbedLayerNormalization", _NO_KINDS, {"epsilon": 0.1}, outputs=2, fixed=True),
    _fused(
        "EmbedLayerNormalization",
        (*_NO_KINDS, None, np.array([[1, 0, 2], [3, 3, 3]], np.int32)),
        {"mask_index_type": 0},
        outputs=3,
        differentiated=(0, 2),
        absent=(1,),
        fixed=True,
    ),
    _fused("Attention", (_TEXT, *_PROJECTION), {"num_heads": 2}),
    _fused("Attention", (_TEXT, *_PROJECTION), {"num_heads": 2, "unidirectional": 1}),
    _fused("Attention", (_TEXT, *_PROJECTION, np.array([2, 3], np.int32)), {"num_heads": 2}),
    _fused("Attention", (_TEXT, *_PROJECTION, _SEEN), {"num_heads": 2, "scale": 0.2}),
    _fused(
        "Attention",
        (_TEXT, *_PROJECTION, None, None, normal(2, 2, 3, 3, seed=4)),
        {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 8]},
    ),
    _fused(
        "Attention",
        (_TEXT, *_PROJECTION, None, _PAST),
        {"num_heads": 2, "unidirectional": 1},
        outputs=2,
        differentiated=(0, 1),
    ),
    _fused("MultiHeadAttention", _QKV, {"num_heads": 2}),
    _fused("MultiHeadAttention", (*_QKV, normal(28, seed=4)), {"num_heads": 2, "scale": 0.3}),
    _fused("MultiHeadAttention", (*_QKV, None, np.array([2, 5], np.int32)), {"num_heads": 2}),
    _fused(
        "MultiHeadAttention",
        (*_SELF, None, None, normal(1, 2, 3, 3, seed=4)),
        {"num_heads": 2, "unidirectional": 1},
        outputs=3,
        differentiated=(0, 1, 2),
    ),
    _fused("RotaryEmbedding", (normal(2, 3, 5, 8), ints(2), *_TABLES)),
    _fused(
        "RotaryEmbedding",
        (normal(2, 3, 16), np.array([[0, 1, 2], [5, 4, 8]]), *_TABLES),
        {"interleaved": 1},
    ),
    _fused(
        "RotaryEmbedding",
        (normal(2, 3, 24), np.array([[0, 1, 2], [5, 4, 8]]), *_TABLES),
        {"num_heads": 2, "rotary_embedding_dim": 8},
    ),
]
