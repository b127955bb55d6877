"""Everything that onnxrd raises on purpose.

::

    OnnxrdError                exit code 1
    ├── ModelError             the model cannot be read or run, or has nothing to compress
    ├── CalibrationError       the data do not fit the model
    ├── ImportanceError        importance cannot be computed, or belongs to another model
    ├── SettingError           a setting makes no sense (exit code 2)
    ├── TargetError            the target cannot be reached, or nothing is gained (exit code 3)
    └── VerificationError      the written model does not do what it should (exit code 4)

Every message says what is wrong and what to do about it, in words for the person at the keyboard.
"""


class OnnxrdError(Exception):
    """Base of all errors that onnxrd raises on purpose; the message is meant for the user."""

    exit_code = 1


class ModelError(OnnxrdError):
    """The model file is missing, broken, cannot be run, or has nothing to compress."""


class CalibrationError(OnnxrdError):
    """Calibration or evaluation data do not fit the model."""


class ImportanceError(OnnxrdError):
    """Importance cannot be computed, or a file of it belongs to another model."""


class SettingError(OnnxrdError):
    """A setting makes no sense."""

    exit_code = 2


class TargetError(OnnxrdError):
    """The target cannot be reached, or the result would be no gain."""

    exit_code = 3


class VerificationError(OnnxrdError):
    """The written model does not behave as it should; no output was left behind."""

    exit_code = 4
