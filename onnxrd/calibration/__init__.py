"""Calibration data in any of the usual forms → batches that are known to fit the model.

Which form should I use?

- One `.npz` (or, in Python, one mapping) with an array for each input, all sharing a first axis,
  the samples: the usual case, and the fastest. An array `labels` may go with them. Saved with
  `np.savez` (not `savez_compressed`) it is mapped into memory, so that it may exceed the RAM.
- A folder of `.npz` files, one call each: when some input has no sample axis, such as the state of
  a recurrent net, or when samples differ in length.
- `test_data_set_*` folders as they come with ONNX models, one call each.
- `script.py:function`, any iterable of dicts, an onnxruntime `CalibrationDataReader`: data that
  have to be made or decoded on the way, one call each.
"""

from onnxrd.calibration.alignment import aligned
from onnxrd.calibration.batches import Batch
from onnxrd.calibration.calibration import Calibration, load

__all__ = ["Batch", "Calibration", "aligned", "load"]
