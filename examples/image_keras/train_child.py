"""Runs in TensorFlow's own environment, where nothing of Millrace is: `python -I train_child.py ORDER.json`.

ORDER.json: {"work", "epochs", "threads", "resume"}. Reads train.npz, validation.npz and held_out.npz of `work`, arrays
`x` [n, 8, 8, 1] and `label` [n]; writes digits.keras, predictions.npz, the held-out images'
`probabilities` [n, 10], and after each epoch history.json and a checkpoint, from which `resume` goes on. Each line of
standard output that begins with a brace is for the parent:

    {"step": 200, "loss": 0.31, "validation_loss": 0.12, "accuracy": 0.97, "seconds": 9.1, "images": 6336}   each epoch
    {"flops": 2.7e7, "peak": 1.2e11, "weights": 169834}

Of the last one `flops` are those of a training step for one image, `peak` those of large products in a second.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

SEED, BATCH, CLASSES = 1, 64, 10
WIDTHS, BLOCKS = (32, 64), 2
PEAK_RATE, WEIGHT_DECAY, CLIP_NORM, LABEL_SMOOTHING, WARMUP_STEPS = 3e-3, 0.05, 1.0, 0.05, 100
ROTATION, ZOOM, SHIFT, NOISE, LARGEST_GREY = 10 / 360, 0.1, 0.75 / 8, 0.5, 16.0
PASSES = 3
"""Forwards, and backwards to inputs and to weights: each as many operations."""
PEAK_SIDE, PEAK_S = 2_048, 1.0
HISTORY, CHECKPOINT = "history.json", "checkpoint.weights.h5"
PR_SET_PDEATHSIG = 1


def tell(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main(order: Mapping[str, Any]) -> None:
    work, epochs = Path(order["work"]), int(order["epochs"])
    tf.config.threading.set_intra_op_parallelism_threads(order["threads"])
    keras.utils.set_random_seed(SEED)
    train, validation, held_out = (read(work / f"{part}.npz") for part in ("train", "validation", "held_out"))
    pixels, logits = network(float(train[0].mean()), float(train[0].std()))
    steps = epochs * (len(train[0]) // BATCH)
    trained = keras.Model(pixels, logits)
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=LABEL_SMOOTHING)
    trained.compile(optimizer(steps), smoothed, metrics=["accuracy"])
    course = Course(work, epochs, restored(trained, work / CHECKPOINT) if order["resume"] else 0)
    begun = course.steps * epochs // steps
    given = {"validation_data": rows(validation), "epochs": epochs, "initial_epoch": begun, "callbacks": [course]}
    trained.fit(batches(train), shuffle=False, verbose=0, **given)
    model = keras.Model(pixels, keras.layers.Softmax(name="probabilities")(logits), name="digits_keras")
    model.save(work / "digits.keras")
    np.savez(work / "predictions.npz", probabilities=model(held_out[0], training=False).numpy())
    flops = PASSES * sum(map(products, trained.layers))
    weights = int(sum(np.prod(weight.shape) for weight in trained.trainable_weights))
    tell(flops=flops, peak=matmul_peak_flops(), weights=weights)


def restored(model: Any, path: Path) -> int:
    """Weights, moments and the number of steps, which is answered."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return int(model.optimizer.iterations.numpy())


def read(path: Path) -> tuple[Any, Any]:
    """Images as floats, and labels as rows of 0 and 1."""
    with np.load(path) as arrays:
        return arrays["x"].astype(np.float32), np.eye(CLASSES, dtype=np.float32)[arrays["label"]]


def network(mean: float, deviation: float) -> tuple[Any, Any]:
    """Input and logits: a residual network (He et al. 2016). Grey values are normalised inside."""
    pixels = keras.Input((8, 8, 1), name="x")
    x = keras.layers.Rescaling(1 / deviation, -mean / deviation)(pixels)
    x = keras.layers.ReLU()(convolution(x, WIDTHS[0], 3))
    for stage, width in enumerate(WIDTHS):
        for index in range(BLOCKS):
            x = block(x, width, stride=2 if stage > 0 and index == 0 else 1)
    return pixels, keras.layers.Dense(CLASSES)(keras.layers.GlobalAveragePooling2D()(x))


def block(x: Any, width: int, stride: int) -> Any:
    """Two 3×3 convolutions beside a shortcut. The last norm starts at zero: a fresh block is its shortcut."""
    same = stride == 1 and x.shape[-1] == width
    shortcut = x if same else convolution(x, width, 1, stride)
    seen = keras.layers.ReLU()(convolution(x, width, 3, stride))
    return keras.layers.ReLU()(convolution(seen, width, 3, gamma="zeros") + shortcut)


def convolution(x: Any, width: int, size: int, stride: int = 1, gamma: str = "ones") -> Any:
    """Without a bias, and with batch norm."""
    seen = keras.layers.Conv2D(width, size, stride, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma)(seen)


def optimizer(steps: int) -> Any:
    """AdamW (Loshchilov and Hutter 2019): linear warm-up and a cosine to zero; vectors do not decay."""
    warmup = min(WARMUP_STEPS, steps // 4 + 1)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps - warmup, warmup_target=PEAK_RATE, warmup_steps=warmup)
    made = keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def batches(part: tuple[Any, Any]) -> Any:
    """Of an epoch: shuffled anew, each image turned, zoomed, shifted and made noisy. One batch after the other, so that
    the same seeds give the same images."""
    changed = {"fill_mode": "constant", "fill_value": 0.0}
    layers = [
        keras.layers.RandomRotation(ROTATION, seed=SEED, **changed),
        keras.layers.RandomZoom(ZOOM, seed=SEED, **changed),
        keras.layers.RandomTranslation(SHIFT, SHIFT, seed=SEED, **changed),
    ]

    def augment(x: Any, label: Any) -> tuple[Any, Any]:
        for layer in layers:
            x = layer(x, training=True)
        noisy = x + tf.random.normal(tf.shape(x), stddev=NOISE)
        return tf.clip_by_value(noisy, 0.0, LARGEST_GREY), label

    found = tf.data.Dataset.from_tensor_slices(part).shuffle(len(part[0]), seed=SEED)
    return found.batch(BATCH, drop_remainder=True).map(augment).prefetch(2)


def rows(part: tuple[Any, Any]) -> Any:
    return tf.data.Dataset.from_tensor_slices(part).batch(BATCH)


class Course(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """What a run has measured so far, and the checkpoint, after each epoch; a run that goes on after some steps keeps
    what was measured of these. `seconds` and `images` are of training alone, without a process's first step, which
    compiles the graph."""

    def __init__(self, work: Path, epochs: int, steps: int) -> None:
        super().__init__()
        self._work, self._epochs = work, epochs
        before = json.loads((work / HISTORY).read_text()) if steps else {"losses": [], "curve": []}
        self._losses = before["losses"][:steps]
        self._curve = [point for point in before["curve"] if point["step"] <= steps]
        last = self._curve[-1] if steps else {"seconds": 0.0, "images": 0}
        self._seconds, self._images = last["seconds"], last["images"]
        self._began: float | None = None
        self._mean = 0.0

    @property
    def steps(self) -> int:
        return len(self._losses)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras tells the mean of the epoch so far."""
        mean, before = float(logs["loss"]), self._mean if batch else 0.0
        self._losses.append(mean * (batch + 1) - before * batch)
        self._mean = mean
        if self._began is None:
            self._began = time.monotonic()
        else:
            self._images += BATCH

    def on_test_begin(self, logs: Any = None) -> None:
        assert self._began is not None
        self._seconds += time.monotonic() - self._began

    def on_test_end(self, logs: Any = None) -> None:
        self._began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        measured = {"loss": logs["loss"], "validation_loss": logs["val_loss"], "accuracy": logs["val_accuracy"]}
        self._curve.append({"step": self.steps, **measured, "seconds": self._seconds, "images": self._images})
        self._save()
        tell(**self._curve[-1])

    def _save(self) -> None:
        """The history first: it may be ahead of the checkpoint, and not behind it."""
        history, weights = self._work / "new.json", self._work / f"new.{CHECKPOINT}"
        history.write_text(json.dumps({"epochs": self._epochs, "losses": self._losses, "curve": self._curve}))
        history.replace(self._work / HISTORY)
        self.model.save_weights(weights)
        weights.replace(self._work / CHECKPOINT)


def products(layer: Any) -> float:
    """Operations of a layer's products for one image, forwards. A multiplication and an addition are two."""
    if not isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        return 0.0
    places = np.prod(layer.output.shape[1:-1]) if isinstance(layer, keras.layers.Conv2D) else 1
    return float(2 * np.prod(layer.kernel.shape) * places)


def matmul_peak_flops() -> float:
    """Operations a second of large products: the fastest of those that fit into PEAK_S."""
    left, right = (tf.random.normal((PEAK_SIDE, PEAK_SIDE)) for _ in range(2))
    fastest, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < PEAK_S:
        started = time.perf_counter()
        tf.linalg.matmul(left, right).numpy()
        fastest = min(fastest, time.perf_counter() - started)
    return float(2 * PEAK_SIDE**3 / fastest)


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    main(json.loads(Path(sys.argv[1]).read_text()))
