"Closed-form attacks on the shuffle: notebook 22a, on residues of nobody"
import pytest
import torch
import torch.nn.functional as F

from faceprivacy.block_dct import decode
from faceprivacy.subtraction import channel_orders, shuffle
from faceprivacy.shuffle_attacks import (Reader, choose_reader, expected_mixing, fit_sources, gram, mixing, moments,
                                         place_found, regress, seen_weights, soft_order, to_picture, to_planes, unmix)

SIZE, M = 16, 3


def generator(seed=0): return torch.Generator().manual_seed(seed)


def smooth(n, seed):
    "Pictures (n, 3, SIZE, SIZE) in [-1, 1] that share a mean"
    def blobs(n, seed):
        x = torch.randn(n, 3, 4, 4, generator=generator(seed))
        return F.interpolate(x, (SIZE, SIZE), mode='bilinear')
    return (.5*blobs(1, 99) + .3*blobs(n, seed)).tanh()


def residue(x):
    "A residue (b, 192, SIZE, SIZE) of rank three: nobody's generator"
    basis = F.normalize(torch.randn(192, 3, generator=generator(7)), dim=0)*torch.tensor([300., 120, 60])
    return torch.einsum('km,bmhw->bkhw', basis, x)


def batches(n=120, made=residue): return lambda: ((made(x), x) for x in smooth(n, 1).split(50))


@pytest.fixture(scope='module')
def sources(): return fit_sources(batches(), M, 10)


def sent(x, n, seed=3):
    orders = channel_orders(n*len(x), generator=generator(seed)).view(len(x), n, 192)
    r = residue(x)
    y = torch.cat([to_planes(decode(shuffle(r, o), clamp=False)) for o in orders.unbind(1)], 1)
    return y, orders.flatten(1)


def true_sources(x, sources): return residue(x).flatten(2).mT @ sources.basis


def test_the_sources_hold_a_residue_of_low_rank(sources):
    r = residue(smooth(20, 2)).flatten(2)
    back = (r.mT @ sources.basis) @ sources.basis.T
    assert torch.allclose(back.mT, r, atol=1e-2*r.abs().max())
    assert sources.rest.max() < 1e-4*sources.variance.mean()
    assert torch.linalg.eigvalsh(sources.own).min() > 0


def test_planes_are_weighted_sums_of_shuffled_channels():
    x = smooth(2, 2)
    y, orders = sent(x, 2)
    for k in range(2):
        for image in range(2):
            moved = residue(x)[image, orders[image, 192*k:192*(k + 1)]].view(3, 64, -1)
            assert torch.allclose((moved*seen_weights(SIZE, SIZE)).sum(1).view(3, SIZE, SIZE),
                                  y[image, 3*k:3*k + 3], atol=.05)


def test_mixing_turns_sources_into_planes(sources):
    x = smooth(3, 2)
    y, orders = sent(x, 2)
    H = mixing(orders, sources, SIZE, SIZE)
    made = (H @ true_sources(x, sources)[..., None])[..., 0].mT
    assert F.cosine_similarity(made.flatten(), y.flatten(), dim=0) > .999


def test_signed_orders_turn_the_mixing(sources):
    orders = channel_orders(2, generator=generator())
    H = mixing(orders, sources, SIZE, SIZE)
    assert torch.allclose(mixing(orders + 192, sources, SIZE, SIZE), -H)


def test_known_orders_give_the_sources_back(sources):
    x, heard = smooth(6, 2), seen_weights(SIZE, SIZE).square().sum(0)
    errors = []
    for n in (1, 4, 16):
        y, orders = sent(x, n)
        s, sure = unmix(y.flatten(2), mixing(orders, sources, SIZE, SIZE), sources, heard)
        errors.append((s - true_sources(x, sources)).norm()/true_sources(x, sources).norm())
        assert sure.min() > -1e-3 and sure.max() <= 1 + 1e-3
    assert errors[0] > errors[1] > errors[2] and errors[2] < .05


def test_regression_finds_the_places_of_known_sources(sources):
    x = smooth(3, 2)
    y, orders = sent(x, 1)
    small = torch.full((SIZE*SIZE, M), 1e-3)
    v, variance = regress(y.flatten(2), true_sources(x, sources), small, sources.rest, seen_weights(SIZE, SIZE))
    want = sources.basis[orders].view(3, 3, 64, M).mT
    assert F.cosine_similarity(v[:, :, 0].flatten(), want[:, :, 0].flatten(), dim=0) > .9
    assert (variance > 0).all() and variance.max() <= 1/192 + 1e-6


@pytest.mark.parametrize('signed', [False, True])
def test_a_soft_order_of_sure_places_is_the_order(signed):
    basis = F.normalize(torch.randn(192, M, generator=generator()), dim=0)
    order = channel_orders(1, generator=generator(1))
    sign = 1 - 2*(torch.randint(2, (1, 192), generator=generator(2)) if signed else torch.zeros(1, 192))
    v = basis[order]*sign[..., None]
    p = soft_order(v, torch.full_like(v, 1e-8), basis, signed)
    assert p.shape == (1, 192, 1 + signed, 192)
    assert torch.equal(p.sum(2).argmax(2), order)
    assert torch.allclose(expected_mixing(p, basis), v, atol=1e-3)
    assert torch.allclose(p.sum((2, 3)), torch.ones(1, 192), atol=1e-3)


def test_the_reader_beats_the_mean_face_and_more_images_help(sources):
    x = smooth(12, 2)
    reader, want = Reader(sources, SIZE, SIZE, rounds=2), true_sources(x, sources)
    def error(s): return ((s - want)[..., 0].norm()/want[..., 0].norm()).item()
    read = {n: error(reader.read(sent(x, n)[0])[0].flatten(2).mT) for n in (1, 8)}
    assert read[8] < read[1] < error(sources.mean[None])


@pytest.mark.parametrize('signed', [False, True])
def test_a_loud_channel_is_found(signed):
    loud = torch.cat([torch.tensor([900.]), torch.full((191,), 3.)])
    def one(x): return loud[:, None, None]*x[:, :1]
    expected = fit_sources(batches(made=one), 1, 10)
    x, orders = smooth(12, 2), channel_orders(12, generator=generator(5))
    sign = torch.where(torch.arange(12) % 2 == int(signed), -1., 1.)[:, None, None, None] if signed else 1.
    y = to_planes(decode(shuffle(sign*one(x), orders), clamp=False))
    reader = Reader(expected, SIZE, SIZE, 'slot', signed=signed)
    assert place_found(reader, y, orders).float().mean() > .8


def test_the_attacker_chooses_how_to_begin(sources):
    x = smooth(20, 4)
    spread = choose_reader(sources, residue(x), sent(x, 1, 8)[0])
    assert type(spread.begin).__name__ == '_Starts'


def test_second_moments_are_those_of_the_residue():
    r = residue(smooth(1, 2))
    orders = channel_orders(600, generator=generator(4))
    y = torch.cat([to_planes(decode(shuffle(r, o[None]), clamp=False)) for o in orders], 1)
    centred = r - r.mean(1, keepdim=True)
    for step in ((0, 0), (0, 1), (1, 0)):
        exact = (centred*torch.roll(centred, (-step[0], -step[1]), (2, 3))).sum(1)/192
        found = gram(y, step)
        inside = found != 0
        assert F.cosine_similarity(found[inside], exact[inside], dim=0) > .95
        assert abs(found[inside].sum()/exact[inside].sum() - 1) < .15
    assert moments(y).shape == (1, 5, SIZE, SIZE) and moments(y).isfinite().all()


def test_a_picture_of_true_sources_is_the_picture(sources):
    x = smooth(10, 2)
    made = to_picture(true_sources(x, sources).mT.unflatten(2, (SIZE, SIZE)), sources)
    assert (made - x).abs().mean() < .02


@pytest.mark.parametrize('call, said', [
    (lambda: to_planes(torch.zeros(2, 4, 8, 8)), r'pictures \(b, 3 n, h, w\)'),
    (lambda: to_planes(torch.zeros(3, 8, 8)), r'pictures \(b, 3 n, h, w\)'),
    (lambda: fit_sources(batches(4), 2), '8 images or more are wanted, not 4'),
    (lambda: fit_sources(batches(9, lambda x: residue(x)*torch.nan), 2), 'holds NaN')])
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError, match=said): call()


def test_a_reader_begins_in_two_ways_only(sources):
    with pytest.raises(ValueError, match='slot or starts'): Reader(sources, SIZE, SIZE, 'end')


def test_an_order_of_another_length_is_refused(sources):
    with pytest.raises(ValueError, match=r'\(b, 192 n\) are wanted'):
        mixing(torch.zeros(1, 100, dtype=torch.long), sources, SIZE, SIZE)
