"""Networks whose outputs do not begin with the samples, although their inputs do.

A recurrent network may take [N, …] and give [T, N, K]. The samples of such an output are not told
apart; what is fed is one sample at a time, and all of an output belongs to it.
"""

from collections.abc import Collection

from onnxrd.calibration.calibration import Calibration
from onnxrd.errors import CalibrationError
from onnxrd.graph.model import Model
from onnxrd.graph.session import DEFAULT, Runtime, Session


def aligned(
    model: Model, data: Calibration, runtime: Runtime = DEFAULT, ignored: Collection[str] = ()
) -> Calibration:
    """The same samples, as one call each if the first axis of an output does not count them.

    Args:
        model: is run once, on two samples if it takes two.
        data: for its inputs.
        runtime: threads and provider.
        ignored: outputs that do not matter.

    Raises:
        ModelError: the model does not run.
        CalibrationError: the model prescribes a batch of several samples, and gives no such output.
    """
    if not data.sample_axis:
        return data
    feeds = next(iter(data.batches(2))).feeds
    rows = len(next(iter(feeds.values())))
    outputs = Session(model.path, runtime=runtime).run(feeds)
    compared = (values for name, values in outputs.items() if name not in ignored)
    floats = (values for values in compared if values.dtype.kind not in "iubOU")
    if all(values.ndim and len(values) == rows for values in floats):
        return data
    if any((spec.fixed_batch or 1) > 1 for spec in model.inputs):
        raise CalibrationError(
            f"{model.path} takes {rows} samples at once, and the first axis of its outputs does "
            "not count them. Export it for one sample, or for any number of them."
        )
    return data.one_by_one()
