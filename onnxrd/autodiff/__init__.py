"""Reverse-mode differentiation of ONNX graphs, run by onnxruntime.

`registry` is the table of rules, and `rules/` fills it by operator family. Rules write with `tape`,
in formulas with `terms`, and may try an operator out with `alone`. `trace` knows the concrete
shapes, `dependence` what has an influence on what, `engine` walks the network backwards, and
`gradients` runs the result and checks its batched form against one sample at a time.
`operators` writes the table of what there is, OPERATORS.md.
"""
