"""The whole objective of stage 2, composed from the formulas in plain float64 loops."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import Tensor, nn

from m2sd_cli.method.backbone import build_backbone
from m2sd_cli.method.class_weights import ClassWeights
from m2sd_cli.method.distillation import distillation_terms, total_loss
from m2sd_cli.method.enhancement import FeatureEnhancement
from m2sd_cli.method.loss_weights import LossWeights
from m2sd_cli.method.losses import Reduction
from m2sd_cli.method.mixing import Mixing, mix
from m2sd_cli.method.network import Network
from m2sd_cli.method.resnet import Architecture, ResNet

CLASSES = 4
TERMS = tuple(term.name for term in fields(LossWeights))
VIRTUAL = tuple(name for name in TERMS if name != "clean")  # the terms that look at virtual images
NOTHING = LossWeights(**dict.fromkeys(TERMS, 0.0))


def models(pyramid: bool = True) -> tuple[Network, FeatureEnhancement]:
    torch.manual_seed(0)
    widths = (4, 8, 8, 12)
    backbone = ResNet(Architecture(imagenet_stem=False, widths=widths, depths=(1, 1, 1, 1)))
    network = Network(backbone, ClassWeights(12, CLASSES))
    enhancement = FeatureEnhancement(widths, CLASSES, pyramid=pyramid)
    return network.double().train(), enhancement.double().train()


def batch(labels: list[int], side: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.randn(len(labels), 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor(labels)


def weights_of(*names: str) -> LossWeights:
    return replace(NOTHING, **dict.fromkeys(names, 1.0))


def terms_of(
    network: Network,
    enhancement: FeatureEnhancement | None,
    weights: LossWeights,
    labels: list[int],
    temperature: float = 4.0,
    mixing: Mixing = "both",
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    x, y = batch(labels)
    generator = torch.Generator().manual_seed(2)
    return distillation_terms(
        network,
        enhancement,
        x,
        y,
        weights=weights,
        beta=1.0,
        temperature=temperature,
        generator=generator,
        mixing=mixing,
        reduction=reduction,
    )


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def cross_entropy(row: list[float], labels: list[float]) -> float:
    return -sum(share * math.log(p) for share, p in zip(labels, softmax(row), strict=True))


def kl(first: list[float], second: list[float], temperature: float = 1.0) -> float:
    pairs = zip(softmax(first, temperature), softmax(second, temperature), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


def attention_map(sample: list[list[list[float]]]) -> list[float]:
    positions = [(i, j) for i in range(len(sample[0])) for j in range(len(sample[0][0]))]
    energy = [sum(channel[i][j] ** 2 for channel in sample) / len(sample) for i, j in positions]
    norm = math.sqrt(sum(value**2 for value in energy))
    return [value / norm for value in energy]


def plain_terms(
    network: Network,
    enhancement: FeatureEnhancement,
    labels: list[int],
    temperature: float,
    chosen: Sequence[int] = (0, 1),
    reduction: Reduction = "mean",
) -> dict[str, float]:
    """Every term as the mean over one branch, summed over the chosen branches, mixup's (0) and CutMix's (1).

    Without any the clean images stand in for the virtual ones of one branch.
    """
    x, y = batch(labels)
    virtual = mix(x, y, CLASSES, 1.0, torch.Generator().manual_seed(2))
    count, branches = len(labels), max(len(chosen), 1)
    soft = virtual.labels.tolist() if chosen else [[float(c == label) for c in range(CLASSES)] for label in labels]
    images = [virtual.branches[number] for number in chosen] or [x]
    with torch.no_grad():
        output = network(torch.cat([*images, x] if len(chosen) == 2 else images))
        phi = [each[: branches * count] for each in output.features.maps]
        enhanced = enhancement((phi[0], phi[1], phi[2], phi[3]))
    logits, p_hat = output.logits.tolist(), enhanced.logits.tolist()
    terms = dict.fromkeys(TERMS, 0.0)
    for i in range(count):
        if len(chosen) == 2:
            first, second, clean = logits[i], logits[count + i], logits[2 * count + i]
            terms["kl"] += (kl(first, second) + kl(second, first)) / count
            terms["clean"] += cross_entropy(clean, [float(c == labels[i]) for c in range(CLASSES)]) / count
        for branch in range(i, branches * count, count):
            terms["ce"] += cross_entropy(logits[branch], soft[i]) / count
            terms["teacher"] += cross_entropy(p_hat[branch], soft[i]) / count
            terms["kd"] += kl(p_hat[branch], logits[branch], temperature) / count
            compared = phi[-len(enhanced.maps) :]  # of level 4 alone without a pyramid
            for teacher, student in zip(enhanced.maps, compared, strict=True):
                goal, own = attention_map(teacher[branch].tolist()), attention_map(student[branch].tolist())
                squares = [(a - b) ** 2 for a, b in zip(goal, own, strict=True)]
                terms["attention"] += sum(squares) / (1 if reduction == "sum" else len(squares)) / count
    return terms


def moved(module: nn.Module) -> list[str]:
    """The parameters that a backward pass has given a gradient other than zero."""
    return [name for name, each in module.named_parameters() if each.grad is not None and each.grad.any()]


@pytest.mark.parametrize(("temperature", "pyramid"), [(1.0, True), (4.0, True), (4.0, False)])
@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 1, 0], [2, 2, 2], [3], [0, 1]])
def test_every_term_is_its_formula(labels: list[int], temperature: float, pyramid: bool) -> None:
    network, enhancement = models(pyramid)
    expected = plain_terms(copy.deepcopy(network), copy.deepcopy(enhancement), labels, temperature)
    terms = terms_of(network, enhancement, weights_of(*TERMS), labels, temperature)
    assert set(terms) == set(TERMS)
    for name, value in terms.items():
        assert value.shape == ()
        assert float(value.detach()) == pytest.approx(expected[name], rel=1e-6, abs=1e-12), name


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 1, 0], [2, 2, 2], [3]])
def test_attention_transfer_is_the_plain_sum_of_squares_where_that_is_asked_for(labels: list[int]) -> None:
    network, enhancement = models()
    expected = plain_terms(copy.deepcopy(network), copy.deepcopy(enhancement), labels, 4.0, reduction="sum")
    terms = terms_of(network, enhancement, weights_of("attention", "clean"), labels, reduction="sum")
    assert float(terms["attention"].detach()) == pytest.approx(expected["attention"], rel=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 1, 0], [2, 2, 2], [0, 1]])
@pytest.mark.parametrize(("mixing", "chosen"), [("mixup", [0]), ("cutmix", [1]), ("none", [])])
def test_every_term_of_one_branch_is_its_formula(mixing: Mixing, chosen: list[int], labels: list[int]) -> None:
    network, enhancement = models()
    expected = plain_terms(copy.deepcopy(network), copy.deepcopy(enhancement), labels, 4.0, chosen)
    names = ("ce", "kd", "attention", "teacher")
    terms = terms_of(network, enhancement, weights_of(*names), labels, mixing=mixing)
    assert set(terms) == set(names)
    for name, value in terms.items():
        assert float(value.detach()) == pytest.approx(expected[name], rel=1e-6, abs=1e-12), name


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "none"])
def test_one_branch_has_no_other_to_agree_with(mixing: Mixing) -> None:
    network, enhancement = models()
    with pytest.raises(ValueError, match="the weight kl needs both branches"):
        terms_of(network, enhancement, LossWeights(), [0, 1], mixing=mixing)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [3]])
def test_without_mixing_and_enhancement_it_is_plain_training(labels: list[int]) -> None:
    network, _ = models()
    [plain] = terms_of(copy.deepcopy(network), None, weights_of("ce"), labels, mixing="none").values()
    [clean] = terms_of(network, None, weights_of("clean"), labels).values()
    torch.testing.assert_close(plain, clean, rtol=1e-6, atol=0, check_dtype=False)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_clean_images_beside_one_branch_are_told_apart_from_it(mixing: Mixing) -> None:
    network, _ = models()
    x, y = batch([0, 1, 2])
    [branch] = mix(x, y, CLASSES, 1.0, torch.Generator().manual_seed(2), mixing).branches
    logits = copy.deepcopy(network)(torch.cat([branch, x])).logits[3:].tolist()
    losses = [
        cross_entropy(row, [float(c == label) for c in range(CLASSES)])
        for row, label in zip(logits, range(3), strict=True)
    ]
    terms = terms_of(network, None, weights_of("ce", "clean"), [0, 1, 2], mixing=mixing)
    assert float(terms["clean"].detach()) == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_the_objective_is_the_weighted_sum() -> None:
    network, enhancement = models()
    weights = LossWeights(ce=1.0, kl=0.5, kd=2.0, attention=100.0, teacher=0.25, clean=3.0)
    labels = [0, 1, 2, 3, 1, 0]
    expected = plain_terms(copy.deepcopy(network), copy.deepcopy(enhancement), labels, 4.0)
    total = total_loss(weights, terms_of(network, enhancement, weights, labels))
    assert float(total.detach()) == pytest.approx(
        sum(getattr(weights, name) * term for name, term in expected.items()), rel=1e-6
    )


def test_the_defaults_are_those_of_the_specification() -> None:
    factors = {name: factor for name, factor in asdict(LossWeights()).items() if factor}
    assert factors == {"ce": 1, "kl": 1, "kd": 1, "attention": 100, "teacher": 1}


@pytest.mark.parametrize("names", [(name,) for name in TERMS] + [("ce", "kl"), ("kd", "clean"), VIRTUAL])
def test_a_term_of_weight_zero_is_not_computed(names: tuple[str, ...]) -> None:
    network, enhancement = models()
    terms = terms_of(network, enhancement, weights_of(*names), [0, 1, 2])
    assert set(terms) == set(names)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_alone_has_the_value_that_it_has_among_all_without_clean_images(name: str) -> None:
    """Clean images share the statistics of the batch norm; but for them no term depends on the others."""
    network, enhancement = models()
    together = weights_of(*TERMS) if name == "clean" else weights_of(*VIRTUAL)
    alone = weights_of("clean", "ce") if name == "clean" else weights_of(name)
    values = [
        terms_of(copy.deepcopy(network), copy.deepcopy(enhancement), weights, [0, 1, 2, 3])[name].detach()
        for weights in (together, alone)
    ]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", ["kd", "attention", "teacher"])
def test_a_term_without_its_enhancement_is_refused(name: str) -> None:
    network, _ = models()
    with pytest.raises(ValueError, match="need feature enhancement"):
        terms_of(network, None, weights_of(name), [0, 1])


def test_mixing_alone_needs_no_enhancement() -> None:
    network, _ = models()
    assert set(terms_of(network, None, weights_of("ce", "kl", "clean"), [0, 1])) == {"ce", "kl", "clean"}


def test_no_weight_no_loss() -> None:
    network, enhancement = models()
    terms = terms_of(network, enhancement, NOTHING, [0, 1])
    assert terms == {}
    with pytest.raises(ValueError, match="every loss weight is 0"):
        total_loss(NOTHING, terms)


def test_clean_images_alone_draw_nothing() -> None:
    network, _ = models()
    generator = torch.Generator().manual_seed(2)
    before = generator.get_state()
    x, y = batch([0, 1])
    distillation_terms(network, None, x, y, weights=weights_of("clean"), beta=1.0, temperature=4.0, generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_all_branches_pass_the_network_as_one_batch() -> None:
    network, enhancement = models()
    seen: list[int] = []
    network.backbone.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    terms_of(network, enhancement, weights_of(*TERMS), [0, 1, 2])
    terms_of(network, enhancement, weights_of("ce"), [0, 1, 2])
    terms_of(network, enhancement, weights_of("clean"), [0, 1, 2])
    terms_of(network, enhancement, weights_of("ce", "clean"), [0, 1, 2], mixing="mixup")
    terms_of(network, enhancement, weights_of("ce"), [0, 1, 2], mixing="none")
    assert seen == [9, 6, 3, 6, 3]


@pytest.mark.parametrize("name", ["kd", "attention"])
def test_a_teacher_is_not_taught(name: str) -> None:
    network, enhancement = models()
    torch.autograd.backward(terms_of(network, enhancement, weights_of(name), [0, 1, 2, 3])[name])
    assert moved(enhancement) == []
    assert moved(network.backbone) == [parameter for parameter, _ in network.backbone.named_parameters()]
    assert moved(network.class_weights) == (["weight"] if name == "kd" else [])


def test_distillation_pulls_the_network_as_if_p_hat_were_a_constant() -> None:
    network, enhancement = models()
    constant = copy.deepcopy(network)
    torch.autograd.backward(terms_of(network, enhancement, weights_of("kd"), [0, 1, 2, 3])["kd"])

    x, y = batch([0, 1, 2, 3])
    virtual = mix(x, y, CLASSES, 1.0, torch.Generator().manual_seed(2))
    output = constant(torch.cat(virtual.branches))
    maps = output.features.maps
    with torch.no_grad():
        p_hat = torch.softmax(enhancement((maps[0], maps[1], maps[2], maps[3])).logits / 4, dim=1)
    # KL(p, q) and -sum p log q have one slope where p is constant.
    torch.autograd.backward(-2 * 16 * (p_hat * torch.log_softmax(output.logits / 4, dim=1)).sum(dim=1).mean())
    for own, expected in zip(network.parameters(), constant.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-6, atol=1e-9)


def test_the_label_signal_reaches_the_backbone_through_the_enhancement() -> None:
    network, enhancement = models()
    torch.autograd.backward(terms_of(network, enhancement, weights_of("teacher"), [0, 1, 2, 3])["teacher"])
    assert moved(network.backbone) == [name for name, _ in network.backbone.named_parameters()]
    assert moved(enhancement) == [name for name, _ in enhancement.named_parameters()]
    assert moved(network.class_weights) == []


@pytest.mark.parametrize("name", ["ce", "kl", "clean"])
def test_the_losses_on_the_logits_train_the_network_alone(name: str) -> None:
    network, enhancement = models()
    torch.autograd.backward(terms_of(network, enhancement, weights_of(name), [0, 1, 2, 3])[name])
    assert moved(network) == [parameter for parameter, _ in network.named_parameters()]
    assert moved(enhancement) == []


def test_a_few_steps_lower_the_objective() -> None:
    network, enhancement = models()
    weights = LossWeights()
    optimiser = torch.optim.SGD([*network.parameters(), *enhancement.parameters()], lr=0.02)
    losses = []
    for _ in range(12):
        loss = total_loss(weights, terms_of(network, enhancement, weights, [0, 1, 2, 3]))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_bf16_autocast_gives_float32_terms_near_the_exact_ones() -> None:
    network, enhancement = models()
    network.float()
    enhancement.float()
    x, y = batch([0, 1, 2, 3])
    values = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            terms = distillation_terms(
                copy.deepcopy(network),
                copy.deepcopy(enhancement),
                x.float(),
                y,
                weights=weights_of(*TERMS),
                beta=1.0,
                temperature=4.0,
                generator=torch.Generator().manual_seed(2),
            )
        assert all(term.dtype == torch.float32 for term in terms.values())
        values.append({name: float(term.detach()) for name, term in terms.items()})
    for name in TERMS:
        assert values[1][name] == pytest.approx(values[0][name], rel=0.1), name


@pytest.mark.parametrize("clean", [0.0, 1.0])
def test_no_gradient_turns_the_order_of_dimensions_around(clean: float) -> None:
    """A map's gradient lies in memory as the map does, channels last; to add one that does not takes far longer."""
    network = Network(build_backbone("resnet20"), ClassWeights(64, 5)).to(memory_format=torch.channels_last)
    enhancement = FeatureEnhancement((16, 16, 32, 64), 5).to(memory_format=torch.channels_last)
    x = torch.randn(6, 3, 24, 24).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        weights = LossWeights(clean=clean)
        terms = distillation_terms(
            network,
            enhancement,
            x,
            torch.arange(6) % 5,
            weights=weights,
            beta=1.0,
            temperature=4.0,
            generator=torch.Generator().manual_seed(0),
        )
    loss = total_loss(weights, terms)
    wrong: list[tuple[str, tuple[int, ...]]] = []
    passed = 0

    def look(name: str) -> Callable[[Sequence[Tensor | None], Sequence[Tensor | None]], None]:
        def hook(inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
            nonlocal passed
            for each in inputs:
                if (
                    each is not None
                    and each.ndim == 4
                    and each.shape[1] in (16, 32, 64, 128)
                    and min(each.shape[2:]) > 1
                ):
                    passed += 1
                    if not each.is_contiguous(memory_format=torch.channels_last):
                        wrong.append((name, tuple(each.shape)))

        return hook

    waiting, known = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in known:
            known.add(node)
            node.register_hook(look(node.name()))
            waiting += [parent for parent, _ in node.next_functions]
    torch.autograd.backward(loss)
    assert passed > 50
    assert not wrong
