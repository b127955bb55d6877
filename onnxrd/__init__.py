"""Rate-distortion compression of ONNX models."""
