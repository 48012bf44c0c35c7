"""espeak-ng, called in this process: an utterance becomes samples.

The library and its voices are those of the package espeakng-loader, so that every machine has the same ones.
"""

import ctypes
from pathlib import Path

import espeakng_loader
import numpy as np
import numpy.typing as npt
import soxr

from examples.speech.features import SAMPLE_RATE
from examples.speech.voices import Utterance

SYNCHRONOUS, DONT_EXIT, UTF8 = 2, 0x8000, 1
RATE, PITCH = 1, 3
"""espeak_PARAMETER, as speak_lib.h has them."""
LOUDEST = 0.9
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesiser:
    """One in a process: the library has one state. A little of what it says depends on what it said before, so what
    is to be the same again is said from the beginning, in a process of its own."""

    def __init__(self) -> None:
        """Raises RuntimeError where the library finds no voices."""
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int),
            *(ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p),
        ]
        folder = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self._rate: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, folder, DONT_EXIT)
        if self._rate <= 0:
            raise RuntimeError("espeak-ng cannot be initialised")
        self._said: list[npt.NDArray[np.int16]] = []
        self._callback = CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, utterance: Utterance) -> npt.NDArray[np.int16]:
        """[samples] at SAMPLE_RATE, as loud as LOUDEST. Raises ValueError where there is no such voice."""
        if self._library.espeak_SetVoiceByName(utterance.voice.encode()):
            raise ValueError(f"espeak-ng has no voice {utterance.voice!r}")
        self._library.espeak_SetParameter(RATE, utterance.speed, 0)
        self._library.espeak_SetParameter(PITCH, utterance.pitch, 0)
        self._said.clear()
        text = utterance.text.encode()
        self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None)
        sound = soxr.resample(np.concatenate(self._said).astype(np.float32), self._rate, SAMPLE_RATE)
        return np.asarray(sound * (LOUDEST * 32_767 / max(np.abs(sound).max(), 1)), np.int16)

    def _receive(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _: int | None) -> int:
        if count > 0:
            self._said.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0
