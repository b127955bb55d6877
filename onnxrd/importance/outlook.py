"""How the importance of each weight would be measured, before any work is done."""

from onnxrd.autodiff.gradients import Gradients
from onnxrd.calibration import Calibration
from onnxrd.distortion import Tasks, find_heads
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime
from onnxrd.graph.weights import find_weights
from onnxrd.importance.finite_difference import fallback_plan
from onnxrd.importance.importance import GROUPS


def outlook(
    model: Model, data: Calibration, *, task: Tasks = None, runtime: Runtime = DEFAULT
) -> dict[str, str]:
    """What `fisher` would do for each weight to be compressed: name → in words.

    In this order, whatever serves first: the rules of the operators behind the weight; function
    bodies, decompositions and unrolling of those that have none; finite differences; a proxy. It
    takes one forward pass or a few, and no reverse pass.

    Args:
        model: the network.
        data: calibration samples, of which one is looked at; their number counts, too.
        task: overrides what the graph's end says.
        runtime: threads and provider.

    Raises:
        CalibrationError: the data do not fit.
        ModelError: the model does not run.
    """
    prepared = model.prepared()
    weights = {w.name: w for w in find_weights(model, prepared) if not w.skip}
    if not weights:
        return {}
    heads = find_heads(prepared, task, sample_axis=data.sample_axis)
    sources = [head.source for head in heads]
    feeds = next(iter(data.batches(1))).feeds
    gradients = Gradients(prepared, model.path.parent, sources, list(weights), runtime=runtime)
    blocked, rewritten = gradients.blocked(feeds), gradients.rewritten(feeds)
    plan = fallback_plan([weights[name] for name in blocked], data.samples)
    groups = {part.weight.name: part.group for part in plan}
    found = {}
    for name in weights:
        if name in groups:
            found[name] = f"finite differences{GROUPS[groups[name]]}: {blocked[name]}"
        elif name in blocked:
            found[name] = f"proxy, the mean of the others: {blocked[name]}"
        else:
            found[name] = ", ".join(rewritten.get(name, ())) or "rule"
    return found
