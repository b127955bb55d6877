"""Matrix products."""

from tests.autodiff.cases.case import Case, ints, normal

_W, _TOKENS = normal(4, 5), ints(0, 2, 2, 5, 0, 6)

CASES = [
    Case("Gemm", (normal(3, 4), _W, normal(5)), weights=(1, 2)),
    Case("Gemm", (normal(3, 4), _W, normal(5)), opset=7, weights=(1, 2)),
    Case("Gemm", (normal(3, 4), _W.T, normal(1, 5)), {"transB": 1}, weights=(1, 2)),
    Case("Gemm", (normal(4, 3), _W.T), {"transA": 1, "transB": 1}),
    Case("Gemm", (normal(4, 3), _W, normal(3, 1)), {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (normal(3, 4), _W, normal(5)), {"alpha": 0.5, "beta": 2.0}, weights=(1, 2)),
    Case("Gemm", (normal(3, 4), _W.T), {"alpha": 0.5, "transB": 1}, opset=11, weights=(1,)),
    Case("Gemm", (normal(3, 4), _W, normal(1)), {"beta": 2.0}, weights=(2,)),
    Case("MatMul", (normal(3, 4), _W), opset=7, weights=(1,)),
    Case("MatMul", (normal(3, 6, 4), _W), weights=(1,)),
    Case("MatMul", (normal(3, 2, 6, 4), _W), weights=(1,)),
    Case("MatMul", (normal(5, 4), normal(3, 4, 6)), weights=(0,), samples_in=1),
    Case("MatMul", (normal(3, 2, 6, 4), normal(3, 2, 4, 5))),
    Case("MatMul", (normal(2, 6, 4), normal(3, 1, 4, 5))),
    Case("MatMul", (normal(4), _W)),
    Case("MatMul", (normal(3, 4), normal(4))),
    Case("MatMul", (normal(4), normal(4))),
    Case("Einsum", (normal(3, 6, 4), _W), {"equation": "ntc,cd->ntd"}, weights=(1,)),
    Case("Einsum", (_W, normal(3, 6, 4)), {"equation": "cd, ntc->ntd"}, weights=(0,), samples_in=1),
    Case("Einsum", (normal(3, 4), _W), {"equation": "bc,cd"}, weights=(1,)),
    Case("Einsum", (normal(3, 6, 2, 4), normal(3, 7, 2, 4)), {"equation": "bihd,bjhd->bhij"}),
    Case("Einsum", (normal(3, 2, 6, 7), normal(3, 7, 2, 4)), {"equation": "bhij,bjhd->bihd"}),
    Case("Einsum", (normal(3, 6, 4), normal(6)), {"equation": "ntc,t->n"}),
    Case("Einsum", (normal(3, 6, 4),), {"equation": "ntc->tn"}),
    Case("Einsum", (normal(3, 6, 4), _W), {"equation": "...c,cd->...d"}, weights=(1,)),
    Case("Einsum", (normal(3, 2, 4), normal(3, 4, 2)), {"equation": "...ij,...jk"}),
    Case("Einsum", (normal(3, 4, 4),), {"equation": "...ii->...i"}),
    Case("Einsum", (normal(4, 4), normal(3)), {"equation": "ii,k->k"}),
    Case("Einsum", (normal(4), normal(4)), {"equation": "i,i"}),
    Case("Einsum", (normal(3, 4),), {"equation": "ij->"}),
    Case("Einsum", (normal(3, 4), normal(4, 5), normal(5)), {"equation": "nc,cd,d->n"}),
]
