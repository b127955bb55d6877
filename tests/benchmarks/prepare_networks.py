"""Networks from packages, with data of our own making, for networks.py.

    pip download --no-deps -d WHEELS ddddocr rapidocr-onnxruntime silero-vad
    python tests/benchmarks/prepare_networks.py WHEELS OUT

writes OUT/NAME/model.onnx and beside it calib.npz and eval.npz, or folders of those names. Text is
rendered in the font that Pillow brings along, speech is replaced by tones of changing loudness with
harmonics, in noise. Calibration and evaluation share no sample. Needs Pillow and onnxruntime.
"""

import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

LETTERS = np.array(list("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789"))
SAMPLES = {"calib": 64, "eval": 128}


def line(rng, height, width, *, letters=5, upside_down=False):
    """[height, width, 3], 0 … 255: a few letters on a ground of some colour, and noise."""
    ground, ink = rng.integers(150, 256, 3), rng.integers(0, 110, 3)
    image = Image.new("RGB", (width, height), tuple(map(int, ground)))
    size = height * rng.uniform(0.55, 0.8)
    font = ImageFont.load_default(size)
    text = "".join(rng.choice(LETTERS, letters))
    draw = ImageDraw.Draw(image)
    place = (rng.uniform(0.02, 0.2) * width, rng.uniform(-0.05, 0.2) * height)
    draw.text(place, text, fill=tuple(map(int, ink)), font=font)
    if upside_down:
        image = image.rotate(180)
    return np.asarray(image) + rng.normal(0, rng.uniform(0, 12), (height, width, 3))


def page(rng, size):
    """[size, size, 3]: lines of text at random places."""
    image = np.full((size, size, 3), rng.integers(180, 256), np.float64)
    for _ in range(rng.integers(2, 6)):
        height = int(rng.integers(20, 48))
        width = int(rng.integers(100, size - 40))
        top, left = rng.integers(0, size - height), rng.integers(0, size - width)
        image[top : top + height, left : left + width] = line(
            rng, height, width, letters=width // height + 1
        )
    return image


def channels_first(images, mean=0.5, scale=0.5):
    x = np.stack(images).clip(0, 255) / 255
    return ((x.transpose(0, 3, 1, 2) - mean) / scale).astype(np.float32)


def captchas(rng, count):
    images = [line(rng, 64, 160).mean(axis=2, keepdims=True) for _ in range(count)]
    return {"input1": channels_first(images, 0.0, 1.0)}


def pages(rng, count):
    return {"x": channels_first([page(rng, 320) for _ in range(count)])}


def recognised(rng, count):
    return {"x": channels_first([line(rng, 48, 320, letters=10) for _ in range(count)])}


def turned(rng, count):
    flips = rng.integers(0, 2, count)
    images = [line(rng, 48, 192, letters=6, upside_down=bool(f)) for f in flips]
    return {"x": channels_first(images), "labels": flips}


def sound(rng, seconds, rate):
    """[seconds · rate]: tones with harmonics that come and go, in noise."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = rng.uniform(300, 3000, 3)
    voice = 0
    for harmonic in range(1, 25):
        gain = sum(np.exp(-(((harmonic * pitch.mean() - f) / 250) ** 2)) for f in formants)
        voice = voice + gain * np.sin(harmonic * phase)
    loudness = np.maximum(0, np.sin(2 * np.pi * rng.uniform(0.4, 2) * time + rng.uniform(0, 6)))
    mixed = 0.2 * voice * loudness + rng.normal(0, rng.uniform(0.001, 0.02), time.size)
    return mixed.clip(-1, 1).astype(np.float32)


def speech(rng, count, session):
    """Calls as the package makes them: 32 ms after a bit of context, with the state so far."""
    calls = []
    while len(calls) < count:
        rate = int(rng.choice([8000, 16000]))
        step, context = rate * 32 // 1000, rate * 4 // 1000
        samples = sound(rng, 1.0, rate)
        state = np.zeros((2, 1, 128), np.float32)
        for start in range(context, samples.size - step, step):
            heard = samples[None, start - context : start + step]
            call = {"input": heard, "state": state, "sr": np.array(rate)}
            _, state = session.run(None, call)
            if rng.random() < 0.25:
                calls.append(call)
    return calls[:count]


NETWORKS = {
    "ddddocr": ("ddddocr/common.onnx", captchas),
    "rapidocr_det": ("rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx", pages),
    "rapidocr_rec": ("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx", recognised),
    "rapidocr_cls": ("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", turned),
    "silero_vad": ("silero_vad/data/silero_vad.onnx", speech),
}


def main(wheels, out):
    for number, (name, (member, make)) in enumerate(NETWORKS.items()):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (wheel,) = wheels.glob(f"{member.partition('/')[0]}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (folder / "model.onnx").write_bytes(archive.read(member))
        for seed, (part, count) in enumerate(SAMPLES.items()):
            rng = np.random.default_rng([seed, number])
            if make is not speech:
                np.savez(folder / f"{part}.npz", **make(rng, count))
                continue
            session = onnxruntime.InferenceSession(folder / "model.onnx")
            (folder / part).mkdir(exist_ok=True)
            for k, call in enumerate(speech(rng, count, session)):
                np.savez(folder / part / f"{k:04}.npz", **call)
        print(name, wheel.name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
