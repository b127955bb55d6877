"""`python -m onnxrd`."""

from onnxrd.cli import main

main()
