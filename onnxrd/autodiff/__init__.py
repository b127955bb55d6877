"""Reverse-mode differentiation of ONNX graphs, run by onnxruntime.

`registry` is the table of rules, `rules/` fills it by operator family, `tape` is what rules write
with, `trace` knows the concrete shapes, `engine` walks the network backwards, and `gradients` runs
the result and checks its batched form against one sample at a time.
"""
