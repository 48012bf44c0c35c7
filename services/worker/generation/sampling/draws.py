"""Uniform numbers by counter: a function of (seed, completion, position, attempt), so that a job continued elsewhere
draws what it would have drawn. The mixing function is SplitMix64's (Steele, Lea, Flood 2014,
doi:10.1145/2660193.2660195)."""

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, S40 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(40)
ONE = np.uint64(1)


def uniforms(seeds: UInts, completions: UInts, positions: UInts, attempts: int) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1), multiples of 2^-24; [rows, attempts]. `positions` count a completion's tokens from 0."""
    stream = _mix(seeds + GOLDEN * (completions + ONE))
    token = _mix(stream + GOLDEN * (positions + ONE))
    bits = _mix(token[:, np.newaxis] + GOLDEN * np.arange(1, attempts + 1, dtype=np.uint64))
    return (bits >> S40).astype(np.float32) * np.float32(2**-24)


def _mix(state: UInts) -> UInts:
    state = (state ^ (state >> S30)) * FIRST
    state = (state ^ (state >> S27)) * SECOND
    return state ^ (state >> S31)
