"""Results as plain data: one JSON document."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxrd.evaluation import Evaluation
from onnxrd.graph.model import Model
from onnxrd.graph.weights import Weight
from onnxrd.importance import Importance
from onnxrd.report.result import Result


def to_json(document: Any) -> str:
    """Indented JSON; numbers that JSON does not have (NaN, infinity) become null."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def model_data(
    model: Model, weights: list[Weight], importance: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What `onnxrd inspect --json` prints; with how importance would be found, if that is known."""
    return {
        "path": model.path,
        "nbytes": model.nbytes,
        "opset": model.opset,
        "ir_version": model.ir.ir_version,
        "digest": model.digest,
        "inputs": [{"name": s.name, "dtype": s.dtype.name, "shape": s.shape} for s in model.inputs],
        "outputs": model.outputs,
        "weights": [
            {
                "name": w.name,
                "shape": w.shape,
                "dtype": w.dtype.name,
                "role": w.role,
                "entries": w.size,
                "channel_axis": w.channel_axis,
                "uses": [f"input {u.slot} of {u.node.op_type} {u.node.name}" for u in w.uses],
                "tied": w.tied,
                "left_alone": w.skip or None,
                **({} if importance is None else {"importance": importance.get(w.name)}),
            }
            for w in weights
        ],
    }


def result_data(result: Result) -> dict[str, Any]:
    """What `onnxrd quantize --json` and `onnxrd prune --json` print."""
    evaluation = None if result.evaluation is None else evaluation_data(result.evaluation)
    return {
        **dataclasses.asdict(dataclasses.replace(result, evaluation=None)),
        "ratio": result.ratio,
        "bits_per_weight": result.bits_per_weight,
        "evaluation": evaluation,
    }


def evaluation_data(evaluation: Evaluation) -> dict[str, Any]:
    """What `onnxrd evaluate --json` prints."""
    return {
        **dataclasses.asdict(evaluation),
        "distortion": evaluation.distortion,
        "ratio": evaluation.ratio,
        "bits_per_weight": evaluation.bits_per_weight,
    }


def importance_data(importance: Importance) -> dict[str, Any]:
    """What `onnxrd importance --json` prints: not the values themselves, but their sums."""
    weights = {
        name: {"entries": v.size, "mean": float(v.mean()), "largest": float(v.max())}
        for name, v in importance.values.items()
    }
    return {**importance.about(), "weights": weights}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
