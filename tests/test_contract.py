"""What every model promises (house style, rule 24), on small ones with weights that matter."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import colourful, filled
from wordmask.image import prepare
from wordmask.segmenter import Segmenter
from wordmask.text import Words

SMALL = ["err-seg-untrained"]


@pytest.fixture(scope="module", params=SMALL)
def model(request):
    return filled(request.param)


@pytest.fixture(scope="module")
def pixels(model):
    return torch.stack([prepare(colourful(60, 80, seed), model.image_input)[0] for seed in range(3)])


def random_words(count: int, model, seed: int = 0) -> Words:
    vectors = torch.randn(count, model.config.clip.width, generator=torch.Generator().manual_seed(seed))
    return Words(torch.nn.functional.normalize(vectors, dim=-1), torch.arange(count))


def plain_attributes(model) -> list[dict[str, str]]:
    """Everything on every module that is no weight, as text."""
    return [{name: repr(value) for name, value in vars(module).items() if name[0] != "_"} for module in model.modules()]


@torch.inference_mode()
def run(model, pixels, words, **settings):
    return model(pixels, words, **settings)


@pytest.mark.parametrize("count", [1, 2, 3, 200])
def test_any_number_of_words(model, pixels, count):
    raw = run(model, pixels, random_words(count, model))
    assert raw.logits.shape[:2] == raw.kept.shape == (3, min(count, 32))
    assert raw.logits.isfinite().all()
    assert (raw.kept.diff(dim=1) > 0).all(), "ascending and distinct"


def test_a_batch_equals_its_parts(model, pixels):
    words = random_words(40, model)
    whole = run(model, pixels, words)
    for number in range(len(pixels)):
        part = run(model, pixels[number : number + 1], words)
        assert torch.equal(part.kept[0], whole.kept[number])
        torch.testing.assert_close(part.logits[0], whole.logits[number], rtol=1e-4, atol=1e-4)


def test_word_order_does_not_matter(model, pixels):
    words = random_words(60, model)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    plain, shuffled = run(model, pixels[:1], words, keep=20), run(model, pixels[:1], Words(words.embeddings[order], words.owner), keep=20)
    back = order[shuffled.kept[0]]
    assert set(back.tolist()) == set(plain.kept[0].tolist())
    torch.testing.assert_close(shuffled.logits[0][back.argsort()], plain.logits[0], rtol=1e-4, atol=1e-4)


def test_the_same_twice(model, pixels):
    words = random_words(40, model)
    first, second = run(model, pixels, words), run(model, pixels, words)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_forward_leaves_no_trace(model, pixels):
    before, attributes = copy.deepcopy(model.state_dict()), plain_attributes(model)
    random = torch.get_rng_state()
    run(model, pixels, random_words(40, model))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert attributes == plain_attributes(model)
    assert torch.equal(random, torch.get_rng_state()), "a random number was drawn"


class LargestTensor(TorchDispatchMode):
    """Notes the most entries any operation's result has."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_twenty_thousand_words_in_one_pass(model, pixels):
    """Nothing has words × pixels entries: the largest tensor is the words themselves, or what 32 classes need anyway."""
    with LargestTensor() as few:
        run(model, pixels[:1], random_words(1_000, model))
    words = random_words(20_000, model)
    with LargestTensor() as many:
        raw = run(model, pixels[:1], words)
    assert raw.votes.shape == (1, 20_000)
    assert many.entries <= max(few.entries, words.embeddings.numel())
    assert many.entries < 20_000 * raw.logits[0, 0].numel() / 10


def test_training_gives_gradients_to_what_trains_alone(model, pixels):
    """One step of the loss reaches every trained parameter but those of classes' text (no text tower here), and no frozen one needs it."""
    from wordmask.models.err_seg import loss

    trained = copy.deepcopy(model).train()
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(trained.is_trained(name))
    words = Words(trained.encode_text(["sky", "a red car", "grass", "sea"]), torch.arange(4))
    target = torch.randint(0, 4, (1, 32, 32), generator=torch.Generator().manual_seed(0))
    loss(trained(pixels[:1], words, present=torch.ones(1, 4, dtype=torch.bool)), target).backward()
    without = [name for name, parameter in trained.named_parameters() if trained.is_trained(name) and parameter.grad is None]
    assert without == []


def test_a_segmenter_takes_a_list(model):
    pictures = [colourful(40, 50), colourful(31, 77, seed=1)]
    many = Segmenter(model)(pictures, ["sky", "car"])
    alone = [Segmenter(model)(picture, ["sky", "car"]) for picture in pictures]
    assert [result.size for result in many] == [(40, 50), (31, 77)]
    assert all((a.labels == b.labels).all() for a, b in zip(many, alone, strict=True))
