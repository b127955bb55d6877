"""The table of operators says what the registry knows."""

from onnxrd.autodiff.operators import FILE, table
from onnxrd.autodiff.registry import DECOMPOSITIONS, PER_SAMPLE, REVERSE

COMMAND = "python -m onnxrd.autodiff.operators"


def test_the_table_is_in_step():
    assert FILE.read_text(encoding="utf8") == table(), f"run {COMMAND}"


def test_every_operator_has_a_row():
    rows = [line.split(" | ") for line in table().splitlines() if line.startswith("| ")][1:]
    names = [name.removeprefix("| ") for name, *_ in rows]
    known = REVERSE.keys() | DECOMPOSITIONS.keys()
    assert sorted(names) == sorted(f"{d}.{op}".lstrip(".") for d, op in known)
    batched = {name.removeprefix("| ") for name, _, weights in rows if weights.strip(" |")}
    assert {op for _, op, _ in PER_SAMPLE} <= batched


def test_a_new_rule_shows(monkeypatch):
    monkeypatch.setitem(REVERSE, ("my.domain", "Mine"), REVERSE["", "Relu"])
    assert "| my.domain.Mine | rule |  |" in table().splitlines()
