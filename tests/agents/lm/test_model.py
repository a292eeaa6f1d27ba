from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rapport.agents.lm.model import Llama, LlamaConfig

CONFIG = LlamaConfig(50, d_model=24, n_layers=2, n_heads=3, d_ff=40, max_length=64)


@pytest.fixture
def model() -> Llama:
    return made()


def made(config: LlamaConfig = CONFIG) -> Llama:
    generator = torch.Generator().manual_seed(0)
    model = Llama(config, generator)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, CONFIG.n_vocab, shape, generator=torch.Generator().manual_seed(seed))


def test_a_token_sees_only_those_before_it(model: Llama) -> None:
    text = tokens(2, 12)
    other = text.clone()
    other[:, 7:] = (other[:, 7:] + 1) % CONFIG.n_vocab
    before, after = model(text), model(other)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amin(dim=(0, 1)).max() > 0.01


def test_a_prefix_is_as_good_as_the_whole_text(model: Llama) -> None:
    prefix, rest = tokens(9), tokens(4, 7, seed=1)
    whole = model(torch.cat([prefix.expand(4, -1), rest], dim=1))[:, 9:]
    split = model(rest, model.read_prefix(prefix))
    torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-4)
    goal = torch.randn(split.shape, generator=torch.Generator().manual_seed(2))
    by_whole = torch.autograd.grad((whole * goal).sum(), list(model.parameters()))
    by_split = torch.autograd.grad((split * goal).sum(), list(model.parameters()))
    torch.testing.assert_close(by_split, by_whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shared", [0, 9])
def test_decoding_step_by_step_equals_reading_at_once(model: Llama, shared: int) -> None:
    prefix = model.read_prefix(tokens(shared)) if shared else None
    lengths, steps = torch.tensor([5, 1, 8]), 6
    text = tokens(3, 8 + steps, seed=1)
    with torch.no_grad():
        whole = model(text, prefix)
    first, cache = model.prefill(text[:, :8], lengths, steps, prefix)
    decoded = [first]
    for step in range(steps):
        decoded.append(model.decode_step(text[torch.arange(3), lengths + step], cache))
    for row, length in enumerate(lengths.tolist()):
        expected = whole[row, length - 1 : length + steps]
        torch.testing.assert_close(torch.stack(decoded)[:, row], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_counted_and_drawn_from_the_generator(tied: bool) -> None:
    config = LlamaConfig(50, d_model=24, n_layers=2, n_heads=3, d_ff=40, tied=tied)
    model = made(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.n_weights
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), made(config).parameters(), strict=True))


def test_an_untrained_model_finds_all_tokens_about_equally_likely() -> None:
    logits = Llama(LlamaConfig(500), torch.Generator().manual_seed(0))(torch.arange(200)[None])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], torch.arange(1, 200))
    assert loss.item() == pytest.approx(torch.tensor(500.0).log().item(), abs=0.1)


def test_what_does_not_fit_is_refused(model: Llama) -> None:
    with pytest.raises(ValueError, match="d_model=24, n_heads=5"):
        LlamaConfig(50, d_model=24, n_heads=5)
    with pytest.raises(ValueError, match="n_layers must be at least 1; got 0"):
        LlamaConfig(50, n_layers=0)
    with pytest.raises(ValueError, match="max_length=64"):
        model(tokens(1, 65))
    with pytest.raises(ValueError, match="max_length=64"):
        model(tokens(1, 60), model.read_prefix(tokens(5)))
    _, cache = model.prefill(tokens(2, 4), torch.tensor([4, 2]), room=1)
    model.decode_step(torch.tensor([1, 2]), cache)
    with pytest.raises(ValueError, match="larger room"):
        model.decode_step(torch.tensor([1, 2]), cache)
