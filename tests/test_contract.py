"""What every model promises (house style, rule 24), on small ones with weights that matter."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import colourful, filled, relative_error
from wordmask.image import prepare
from wordmask.models import MODELS
from wordmask.models.eov_seg import SIMILARITIES_AT_ONCE
from wordmask.models.err_seg import loss
from wordmask.raw import QueryMasks
from wordmask.segmenter import Segmenter
from wordmask.text import Words
from wordmask.training.set_loss import Target, set_loss


@pytest.fixture(scope="module", params=[f"{family}-untrained" for family in MODELS])
def model(request):
    return filled(request.param)


@pytest.fixture(scope="module")
def pixels(model):
    return torch.stack([prepare(colourful(60, 80, seed), model.image_input)[0] for seed in range(3)])


def random_words(count: int, model, seed: int = 0) -> Words:
    vectors = torch.randn(count, model.config.clip.width, generator=torch.Generator().manual_seed(seed))
    return Words(torch.nn.functional.normalize(vectors, dim=-1), torch.arange(count), torch.arange(count) % 3 == 0)


def class_maps(raw, count: int) -> torch.Tensor:
    """What a model says of every class at every pixel, (B, T, h, w): the reading of its raw output, the slow way."""
    if isinstance(raw, QueryMasks):
        return torch.einsum("bqt,bqhw->bthw", raw.class_logits.softmax(dim=-1)[..., :-1], raw.mask_logits.sigmoid())
    maps = raw.logits.new_zeros(len(raw.kept), count, *raw.logits.shape[2:])
    return maps.scatter(1, raw.kept[:, :, None, None].expand_as(raw.logits), raw.logits.sigmoid())


def plain_attributes(model) -> list[dict[str, str]]:
    """Everything on every module that is no weight, as text."""
    return [{name: repr(value) for name, value in vars(module).items() if name[0] != "_"} for module in model.modules()]


@torch.inference_mode()
def run(model, pixels, words, **settings):
    return model(pixels, words, **settings)


@pytest.mark.parametrize("count", [1, 2, 3, 200])
def test_any_number_of_words(model, pixels, count):
    raw = run(model, pixels, random_words(count, model))
    assert all(tensor.isfinite().all() for tensor in raw)
    maps = class_maps(raw, count)
    assert maps.shape[:2] == (3, count)
    assert maps.flatten(1).std(dim=1).min() > 0, "something to see in every picture"


def test_a_batch_equals_its_parts(model, pixels):
    words = random_words(40, model)
    whole = run(model, pixels, words)
    for number in range(len(pixels)):
        part = run(model, pixels[number : number + 1], words)
        torch.testing.assert_close(class_maps(part, 40)[0], class_maps(whole, 40)[number], rtol=1e-4, atol=1e-4)


def test_word_order_does_not_matter(model, pixels):
    words = random_words(60, model)
    choice = {"keep": 20} if model.keep_steps else {}
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    shuffled = Words(words.embeddings[order], words.owner, words.seen[order])
    plain, other = (class_maps(run(model, pixels[:1], given, **choice), 60) for given in (words, shuffled))
    torch.testing.assert_close(other, plain[:, order], rtol=1e-4, atol=1e-4)


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
    """Nothing has words × pixels entries: the largest tensor is the words themselves, a part of fixed size, or what 32
    classes need."""
    with LargestTensor() as few:
        run(model, pixels[:1], random_words(1_000, model))
    words = random_words(20_000, model)
    with LargestTensor() as many:
        raw = run(model, pixels[:1], words)
    assert 20_000 in raw[-1].shape or 20_001 in raw[0].shape
    assert many.entries <= max(few.entries, words.embeddings.numel(), SIMILARITIES_AT_ONCE)
    assert many.entries < 20_000 * (256 // 4) ** 2 / 10


def loss_of(model, pixels, words):
    """The loss of a model on labels, or targets, that mean nothing."""
    generator = torch.Generator().manual_seed(0)
    if MODELS[model.family].objective == "semantic":
        target = torch.randint(0, 4, (1, 32, 32), generator=generator)
        return loss(model(pixels[:1], words, present=torch.ones(1, 4, dtype=torch.bool)), target)
    masks = torch.rand(3, 32, 32, generator=generator) > 0.5
    return set_loss(model(pixels[:1], words), [Target(torch.tensor([0, 2, 3]), masks)])


def test_training_gives_gradients_to_what_trains_alone(model, pixels):
    """One step of the loss reaches every trained parameter but those of classes' text (no text tower here), and no
    frozen one needs it."""
    trained = copy.deepcopy(model).train()
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(trained.is_trained(name))
    seen = torch.ones(4, dtype=torch.bool)
    words = Words(trained.encode_text(["sky", "a red car", "grass", "sea"]), torch.arange(4), seen)
    loss_of(trained, pixels, words).backward()
    without = [
        name for name, parameter in trained.named_parameters() if trained.is_trained(name) and parameter.grad is None
    ]
    assert without == []


def test_inference_needs_no_training_parts(model, pixels):
    words = random_words(40, model)
    slim = copy.deepcopy(model).for_inference()
    for ours, whole in zip(run(slim, pixels, words), run(model, pixels, words), strict=True):
        assert relative_error(ours, whole) < 1e-5, "batch norms are folded: equal but for rounding"
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in slim.modules())
    once = run(slim, pixels, words)
    for folded_again, folded in zip(run(slim.for_inference(), pixels, words), once, strict=True):
        assert torch.equal(folded_again, folded), "what is folded stays as it is"


@pytest.mark.parametrize("batch", [2, 8])
def test_a_list_of_different_sizes_gives_what_each_gives_alone(model, batch):
    """Pictures of one input size go together; none is padded to another's."""
    pictures = [colourful(40, 50), colourful(31, 77, seed=1), colourful(80, 100, seed=2), colourful(50, 40, seed=3)]
    together, one_by_one = Segmenter(model, batch=batch), Segmenter(model)
    for task in model.tasks:
        many = together(pictures, ["sky", "car", "grass"], task=task)
        alone = [one_by_one(picture, ["sky", "car", "grass"], task=task) for picture in pictures]
        assert [result.size for result in many] == [(40, 50), (31, 77), (80, 100), (50, 40)]
        for a, b in zip(many, alone, strict=True):
            assert (a.labels == b.labels).mean() > 0.999
            assert [region.name for region in a.regions] == [region.name for region in b.regions]
