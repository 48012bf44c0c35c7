import pytest

from scripts.gpu_check.roofline import CARDS, Card, decode_work, find_card, position_bytes, prefill_work, weight_bytes
from tests.models import LLAMA_8B, Llama

CARD = Card(bytes_s=1e12, flops_s=1e14)
SHAPE = Llama(
    layers=2, hidden=8, heads=2, kv_heads=1, head_size=4, intermediate=16, vocabulary_size=100, precision="fp16"
)
LAYER = (2 * 2 + 2 * 1) * 4 * 8 + 3 * 8 * 16 + 2 * 8
WEIGHTS = 2 * LAYER + 8 + 8 * 100


def test_a_decode_step_reads_the_weights_once_and_what_each_row_holds() -> None:
    work = decode_work(SHAPE, rows=3, length=10)
    held = 3 * 10 * (2 * 2 * 1 * 4 * 2)
    assert work.read_bytes == WEIGHTS * 2 + 3 * 8 * 2 + held
    assert work.flops == 2 * 3 * WEIGHTS + 3 * 10 * (4 * 2 * 2 * 4)
    assert work.tokens == 3


def test_a_prefill_multiplies_each_token_with_the_layers_and_the_last_one_with_the_head() -> None:
    work = prefill_work(SHAPE, tokens=4)
    pairs = 1 + 2 + 3 + 4
    assert work.flops == 2 * 4 * (2 * LAYER + 8) + 2 * 800 + pairs * (4 * 2 * 2 * 4)
    assert work.tokens == 4


def test_an_8_bit_cache_halves_what_a_position_holds() -> None:
    narrow = Llama(layers=2, kv_heads=1, head_size=4, precision="fp16", kv_precision="int8")
    assert position_bytes(SHAPE) == 2 * position_bytes(narrow) == 32


def test_the_8b_model_weighs_what_its_name_says() -> None:
    assert weight_bytes(LLAMA_8B) == pytest.approx(2 * 8.03e9, rel=0.001)
    assert position_bytes(LLAMA_8B) == 128 << 10


def test_shares_are_of_what_the_card_does_in_the_same_time() -> None:
    work = decode_work(SHAPE, rows=1, length=0)
    assert work.bandwidth_share(work.read_bytes / 1e12, CARD) == pytest.approx(1.0)
    assert work.compute_share(4 * work.flops / 1e14, CARD) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_a_card_is_known_by_the_drivers_name(name: str, card: str) -> None:
    assert find_card(name) == CARDS[card]


@pytest.mark.parametrize("name", ["NVIDIA GeForce GTX 1080", "NVIDIA RTX A1000", "CUDA", ""])
def test_a_card_that_is_not_known_has_no_peaks(name: str) -> None:
    assert find_card(name) is None
