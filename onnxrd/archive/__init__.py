"""The smallest form of a model for transport: one file, checked, restored byte for byte.

An archive is no .onnx and no runtime loads it: `unpack` restores the files as they were, and
`load_session` opens an onnxruntime session from it without a file in between.
"""

from onnxrd.archive.packing import pack
from onnxrd.archive.session import load_session
from onnxrd.archive.unpacking import Packed, is_archive, unpack

__all__ = ["Packed", "is_archive", "load_session", "pack", "unpack"]
