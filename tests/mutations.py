"""Broken versions of a model file: by bytes, and by fields of its protobuf messages."""

import random

import onnx

EXTREMES = (0, 1, -1, 2, 7, 127, 2**31 - 1, -(2**31), 2**60, -(2**63), 2**63 - 1)
STRINGS = ("", "x", "y", "w0", "../../etc/passwd", "a/b\\c", "\0", "ä" * 300, "Loop", "ai.onnx.ml")


def mutated(content, seed):
    """A model file with one or a few things changed at random, the same for the same seed."""
    rng = random.Random(seed)
    if rng.random() < 0.4:
        return _bytes(bytearray(content), rng)
    model = onnx.ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _field(model, rng)
    return model.SerializeToString()


def damaged(content, seed):
    """Any file with one or a few bytes changed at random, the same for the same seed."""
    return _bytes(bytearray(content), random.Random(seed))


def _bytes(content, rng):
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if not content:
            break
        at = rng.randrange(len(content))
        kind = rng.randrange(4)
        if kind == 0:
            content[at] = rng.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[at : at + rng.choice((1, 2, 16, 1000))]
        else:
            content[at:at] = content[at : at + rng.choice((1, 2, 16, 1000))]
    return bytes(content)


def _messages(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner)


def _field(model, rng):
    """Change one field of one message; messages of all kinds are as likely."""
    by_kind = {}
    for message in _messages(model):
        by_kind.setdefault(message.DESCRIPTOR.name, []).append(message)
    message = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    field = rng.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        _repeated(getattr(message, field.name), field, rng)
    elif field.message_type is not None:
        if message.HasField(field.name) and rng.random() < 0.5:
            message.ClearField(field.name)
        else:
            getattr(message, field.name).SetInParent()
    else:
        _assign(lambda value: setattr(message, field.name, value), field, rng)


def _repeated(values, field, rng):
    kind = rng.randrange(4) if values else 3
    if kind == 0:
        del values[rng.randrange(len(values))]
    elif kind == 1 and len(values) > 1:
        here, there = (rng.randrange(len(values)) for _ in range(2))
        if field.message_type is None:
            values[here] = values[there]
        else:
            values[here].CopyFrom(values[there])
    elif kind == 2:
        values.extend([values[rng.randrange(len(values))]])
    elif field.message_type is not None:
        values.add()
    else:
        _assign(lambda value: values.append(value), field, rng)


def _assign(assign, field, rng):
    if field.cpp_type == field.CPPTYPE_STRING:
        text = rng.choice(STRINGS)
        assign(text.encode() if field.type == field.TYPE_BYTES else text)
        return
    try:
        assign(rng.choice(EXTREMES))
    except ValueError:  # not in the range of its type
        assign(rng.randrange(2))
