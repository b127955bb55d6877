"""The ONNX file and graph: load, save, find the weights, run sessions."""
