"""How the weights of a job are stored: in the fewest bytes that load within the memory allowed."""

import math
from collections.abc import Mapping

from onnxrd import encodings
from onnxrd.errors import TargetError
from onnxrd.evaluation import count_parameters
from onnxrd.pipeline.job import Job
from onnxrd.quantizers import Quantized
from onnxrd.report.tables import nbytes

LEAST = 1 << 30
"""Bytes that loading may take if nothing else is said; more for networks that take more anyway."""

DECODING = 0.8
"""Share of the memory at load that decoding may take; the rest is for onnxruntime's own needs."""

Fragments = dict[str, encodings.Fragment]


def encode(
    job: Job, quantized: Mapping[str, Quantized], slots: Mapping[str, encodings.Slot]
) -> tuple[Fragments, tuple[str, ...]]:
    """Choose encodings.

    Args:
        job: what is compressed, with what options.
        quantized: the weights, by name.
        slots: their places, by name.

    Returns:
        Fragments by name of the weight, and what has to be said about them.

    Raises:
        TargetError: loading takes more memory than allowed, whatever the encodings.
        SettingError: an encoding is asked for that is not legal here.
    """
    options, limit = job.options, load_limit(job)
    parts, places = encodings.apart(quantized, slots)
    fragments = encodings.cheapest_together(parts, places, force=options.encoding)
    whole = encodings.together(fragments, quantized, slots)
    sizes = sum(math.prod(q.shape) for q in quantized.values())
    others = 4 * max(0, count_parameters(job.model) - sizes)
    needed = others + encodings.load_nbytes(whole.values())
    if needed <= DECODING * limit:
        return whole, ()
    if options.encoding is None:
        besides = needed - encodings.load_nbytes(fragments.values())
        allowed = int(DECODING * limit) - besides
        fragments = encodings.leaner(fragments, parts, places, load_limit=allowed)
        whole = encodings.together(fragments, quantized, slots)
    now = others + encodings.load_nbytes(whole.values())
    if now > DECODING * limit and options.max_load_memory is not None:
        raise TargetError(
            f"{nbytes(limit)} are too little to load this: about {_taken(now)} are needed. Allow "
            "more by --max-load-memory."
        )
    return whole, (_told(needed, now),)


def load_limit(job: Job) -> int:
    """Bytes of memory that onnxruntime may take when it loads the output, to first order."""
    if job.options.max_load_memory is not None:
        return job.options.max_load_memory
    return max(LEAST, 16 * count_parameters(job.model))


def _told(needed: int, now: int) -> str:
    if now == needed:
        return f"loading takes much memory: about {_taken(now)}."
    return (
        f"loading would take about {_taken(needed)} of memory; with weights decoded in turns or "
        f"stored in other ways it takes about {_taken(now)}. Allow more by --max-load-memory for a "
        "somewhat smaller file."
    )


def _taken(decoding: int) -> str:
    return nbytes(decoding / DECODING)
