"""Selective state spaces: equal to the recurrence written out, one way in time, linear in length."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from afterimage.networks.state_space import StateSpaceBlock, recur, selective_scan


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(n_times: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """Values, steps, rates, enter and leave of 2 series, 5 features and 4 states."""
    generator = torch.Generator().manual_seed(n_times)
    shapes = [(2, n_times, 5), (2, n_times, 5), (5, 4), (2, n_times, 4), (2, n_times, 4)]
    values, steps, rates, enter, leave = (
        torch.randn(shape, generator=generator, dtype=dtype).to(device) for shape in shapes
    )
    return [values, 0.3 * steps.exp(), -rates.exp(), enter, leave]


def written_out(
    values: Tensor, steps: Tensor, rates: Tensor, enter: Tensor, leave: Tensor
) -> Tensor:
    state = torch.zeros_like(values[:, 0, :, None] * rates)
    found = []
    for t in range(values.shape[1]):
        taken = (steps[:, t] * values[:, t])[..., None] * enter[:, t, None]
        state = (steps[:, t, :, None] * rates).exp() * state + taken
        found.append((state * leave[:, t, None]).sum(-1))
    return torch.stack(found, 1)


@pytest.mark.parametrize("n_times", [1, 7, 32, 33, 200, 1500])
def test_chunks_give_what_the_recurrence_gives(n_times: int) -> None:
    arguments = drawn(n_times)
    expected = written_out(*arguments)
    error = (selective_scan(*arguments) - expected).abs().max() / expected.abs().max()
    assert float(error) < 1e-5


def test_gradients_are_those_of_the_recurrence() -> None:
    arguments = drawn(75, torch.float64)
    gradients = []
    for function in (selective_scan, written_out):
        own = [one.clone().requires_grad_() for one in arguments]
        function(*own).square().sum().backward()
        gradients.append([one.grad for one in own])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_size_of_chunks_does_not_matter_and_decays_may_be_0_or_1() -> None:
    drive = torch.randn(2, 90, 3, dtype=torch.float64)
    decay = torch.rand(2, 90, 3, dtype=torch.float64)
    decay[:, ::7], decay[:, 3::11] = 0.0, 1.0
    for chunk in (1, 8, 90, 400):
        torch.testing.assert_close(recur(decay, drive, chunk), recur(decay, drive))
    torch.testing.assert_close(recur(torch.ones_like(drive), drive), drive.cumsum(1))


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    """The fused kernel where it is installed, else the chunks."""
    expected = written_out(*drawn(1500))
    found = selective_scan(*drawn(1500, device="cuda")).cpu()
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_what_happens_is_known_later_only_or_both_ways() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(1, 60, 8)
    changed = tokens.clone()
    changed[:, 30] += 1.0
    for bidirectional in (False, True):
        block = StateSpaceBlock(8, n_states=4, bidirectional=bidirectional)
        with torch.inference_mode():
            moved = (block(changed) - block(tokens)).abs().amax((0, 2))
        assert float(moved[30:].min()) > 0
        if bidirectional:
            assert float(moved[:30].min()) > 0
        else:
            assert float(moved[:30].max()) == 0


def test_time_is_linear_in_length() -> None:
    """Forward and backward at four times the length take less than 4.6 times as long."""
    torch.manual_seed(0)
    block = StateSpaceBlock(16, n_states=8)

    def seconds(n_times: int) -> float:
        tokens = torch.randn(1, n_times, 16)
        started = time.process_time()
        block(tokens).square().mean().backward()
        return time.process_time() - started

    seconds(1024), seconds(4096)  # what is only done once
    short, long = (min(seconds(n) for _ in range(5)) for n in (1024, 4096))
    print(f"four times the length takes {long / short:.2f} times as long")
    assert long <= 4.6 * short
