"""FLOPs against counting by hand."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from m2sd_cli.benchmark.flops import count_flops

SIZES = st.integers(1, 5)


@given(batch=SIZES, width=SIZES, side=st.integers(2, 6), classes=SIZES)
@settings(max_examples=10)
def test_a_tiny_network_forward_and_backward(batch: int, width: int, side: int, classes: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width, track_running_stats=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    ).eval()
    x = torch.rand(batch, 3, side, side)
    convolution = 2 * batch * side * side * width * 3 * 3 * 3
    linear = 2 * batch * width * classes
    assert count_flops(lambda: network(x)) == convolution + linear
    # The gradient of the weights costs as much as the forward, and so does that of the input, which x does not want.
    both = count_flops(lambda: torch.autograd.backward(network(x).sum()))
    assert both == 2 * convolution + 3 * linear


def test_fused_attention_counts_as_its_products() -> None:
    query, key, value = (
        torch.rand(2, 3, length, 8, requires_grad=True) for length in (7, 5, 5)
    )  # (B, heads, N, D), (B, heads, M, D) twice

    def by_hand() -> torch.Tensor:
        return F.softmax(query @ key.transpose(2, 3) / 8**0.5, dim=3) @ value

    products = 2 * (2 * 2 * 3 * 7 * 5 * 8)
    assert count_flops(by_hand) == products
    assert count_flops(lambda: F.scaled_dot_product_attention(query, key, value)) == products
    # Backward there are two products for each one of the forward; the fused kernel computes the scores once more.
    fused = count_flops(lambda: torch.autograd.backward(F.scaled_dot_product_attention(query, key, value).sum()))
    assert count_flops(lambda: torch.autograd.backward(by_hand().sum())) == 3 * products
    assert fused == 3 * products + products // 2
