"""Golden parity of the group network, its training, exact masks, and bad input, for faceprivacy.group_dropout"""
import json
import os
from pathlib import Path
import numpy as np, pytest, torch, torch.nn.functional as F
from torch.utils.data import TensorDataset
from faceprivacy import group_dropout as gd
from faceprivacy.recognition import backbone, load_weights
from faceprivacy.slerp import Slerp, orthogonal
from golden_rule import assert_golden, golden_input, golden_state

GOLDEN = Path(__file__).parent/'golden'

@pytest.fixture(autouse=True)
def one_thread():
    "Small operations wait for each other on two threads of a busy machine"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)

@pytest.fixture(scope='module')
def official():
    net = gd.GroupNet('ir50').eval()
    net.load_state_dict(golden_state('slerpface_ir50', net.state_dict()))
    return net

def test_the_network_has_the_official_keys_and_outputs(official):
    known = json.loads((GOLDEN/'tface_state_dict.json').read_text())['slerpface_ir50']
    assert {k: list(v.shape) for k, v in official.state_dict().items()} == known
    assert list(official.state_dict()) == list(known)
    face, golden = golden_input('input.face', (2, 3, 112, 112), 'random')*2 - 1, np.load(GOLDEN/'tface_networks.npz')
    with torch.inference_mode(): vector, grid = official(face)
    assert_golden(vector, golden, 'slerpface_ir50.vector', 1e-4)
    groups, weight = gd.extract(official, face)
    assert_golden(groups.transpose(1, 2).reshape(2, 16, 7, 7), golden, 'slerpface_ir50.groups', 1e-4)
    with torch.inference_mode():
        attention = official.group_attention(.5*golden_input('input.groups', (2, 16, 7, 7)))
    assert_golden(attention.view(2, 7, 7, 1), golden, 'slerpface_ir50.map', 1e-3)
    assert weight.shape == (2, 49)

def test_a_released_checkpoint_opens_without_unpickling(tmp_path):
    net = gd.GroupNet('small')
    torch.save({'state_dict': {f'module.{k}': v for k, v in net.state_dict().items()}}, tmp_path/'net.pth')
    other = load_weights(gd.GroupNet('small'), tmp_path/'net.pth')
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values()))
    class Harm:
        def __reduce__(self): return os.system, ('exit 1',)
    torch.save(dict(harm=Harm()), tmp_path/'harm.pth')
    with pytest.raises(ValueError, match='not a file of tensors and nothing else'):
        load_weights(other, tmp_path/'harm.pth')

def test_the_network_learns_and_gradients_reach_everything():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    pattern = F.interpolate(torch.rand(3, 3, 4, 4, generator=g), size=112).repeat_interleave(8, 0)
    data = TensorDataset((pattern*255).byte(), torch.arange(3).repeat_interleave(8))
    net, goal, frozen = gd.GroupNet('small'), gd.GroupLoss(128, 3), backbone('small').eval()
    x, person = data.tensors[0].float()/127.5 - 1, data.tensors[1]
    vector, grid = net(x)
    terms = goal(vector, gd.as_groups(grid), net.group_attention(grid), person, frozen(x).detach(), g)
    sum(terms.values()).backward()
    for name, p in [*net.named_parameters(), *goal.named_parameters()]:
        if name == 'group_attention.attention.4.bias': continue  # a shift of all cells, but for the PReLU
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name
    before = goal.rates.detach().clone()
    history = gd.train_groups(net, goal, data, 6, frozen, batch=8)
    assert all(history[-1][k] < history[0][k] for k in ('vector', 'groups', 'protected'))
    assert not torch.equal(before, goal.rates) and goal.counts.sum().item() == pytest.approx(392, abs=1e-2)
    assert not any(p.requires_grad for p in frozen.parameters())

def test_training_repeats_and_too_few_images_are_refused():
    data = TensorDataset(torch.zeros(8, 3, 112, 112, dtype=torch.uint8), torch.arange(8) % 2)
    def go():
        torch.manual_seed(0)
        return gd.train_groups(gd.GroupNet('small'), gd.GroupLoss(128, 2), data, 1, batch=4)
    assert go() == go()
    with pytest.raises(ValueError, match='8 images do not fill a batch of 9'):
        gd.train_groups(gd.GroupNet('small'), gd.GroupLoss(128, 2), data, 1, batch=9)

@pytest.mark.parametrize('dim', [128, 130, 512])
@pytest.mark.parametrize('slope', [0., 2., 1e6])
def test_as_many_fall_as_in_the_uniform_scheme(dim, slope):
    m = -(-dim//16)
    counts = tuple(int(n) for n in gd.whole(gd.budget(torch.randn(m), 8*m, 4, 12), 8*m))
    s, uniform = gd.LearnedSlerp(dim, counts=counts, order_slope=slope), Slerp(dim, gap_base=0)
    z, keys = unit(20, dim), s.keys(20, torch.Generator().manual_seed(0))
    record = s.protect(z, keys)
    assert (record.mask.sum((1, 2)) == uniform.protect(z, keys).mask.sum((1, 2))).all()
    assert ((~record.mask).sum(-1) == torch.tensor(counts)).all()
    torch.testing.assert_close(s.compare(record, z, keys), torch.ones(20), atol=1e-5, rtol=0)
    found = s.search(z, s.gallery(record, keys))
    torch.testing.assert_close(found[:, 3], s.compare(record[[3]*20], z, keys[[3]*20]), atol=2e-5, rtol=0)

def test_the_mask_and_the_weight_without_energy_say_nothing_of_the_face():
    s = gd.LearnedSlerp(128, order_slope=3., energy=0., survival=1.)
    keys = s.keys(20, torch.Generator().manual_seed(0))
    a, b = s.protect(unit(20, 128), keys), s.protect(unit(20, 128, seed=1), keys)
    assert torch.equal(a.mask, b.mask) and torch.equal(a.weight, b.weight)

@pytest.mark.parametrize('dim', [40, 64])
def test_learning_lowers_the_loss_and_keeps_the_map_orthogonal(dim):
    g = torch.Generator().manual_seed(0)
    person = torch.arange(200).repeat_interleave(4)
    z = F.normalize(2*torch.randn(200, dim, generator=g)[person] + torch.randn(800, dim, generator=g))
    s, history = gd.learn(z, person, steps=40)
    again, _ = gd.learn(z, person, steps=40)
    assert np.mean(history[-5:]) < np.mean(history[:5])
    torch.testing.assert_close(s.division.T @ s.division, torch.eye(dim), atol=1e-4, rtol=0)
    assert torch.equal(s.division, again.division) and s.counts == again.counts
    assert sum(s.counts) == 8*s.groups and all(4 <= n <= 12 for n in s.counts)

def test_a_part_that_is_not_learned_stays():
    person = torch.arange(50).repeat_interleave(4)
    z = F.normalize(2*unit(50, 32)[person] + unit(200, 32, seed=1))
    s, _ = gd.learn(z, person, parts=['order'], steps=5)
    torch.testing.assert_close(s.division, orthogonal(32, 32).float(), atol=1e-5, rtol=0)
    assert (s.energy, s.survival, set(s.bias), s.counts) == (1, 0, {0.}, (8, 8)) and s.order_slope > 0
    assert gd.learn(z, person, parts=['weights'], steps=5)[0].order_slope == 0

def test_looking_past_the_key_undoes_the_turn():
    z, other = unit(30, 128).double(), unit(30, 128, seed=1).double()
    found = []
    for alpha in (0., .5, .95):
        s = Slerp(128, alpha=alpha, gap_base=0)
        keys = s.keys(30, torch.Generator().manual_seed(0))
        found.append(gd.compare_past_key(s, s.protect(z, keys), other, keys))
    for x in found[1:]: torch.testing.assert_close(x, found[0], atol=2e-5, rtol=0)

def test_a_scheme_is_saved_and_loaded(tmp_path):
    s = gd.LearnedSlerp(32, division=orthogonal(32, 32, 5).float(), counts=(4, 12), order_slope=2.,
                        bias=(.5, -.5), energy=.25, survival=.75)
    gd.save_scheme(tmp_path/'s.safetensors', s)
    t = gd.load_scheme(tmp_path/'s.safetensors')
    keys = s.keys(5, torch.Generator().manual_seed(0))
    a, b = (v.protect(unit(5, 32), keys) for v in (s, t))
    torch.testing.assert_close(a.rows, b.rows)
    torch.testing.assert_close(a.weight, b.weight)
    gd.save_tensors(tmp_path/'x.safetensors', z=torch.zeros(2))
    with pytest.raises(ValueError, match='holds no learned scheme'): gd.load_scheme(tmp_path/'x.safetensors')

@pytest.mark.parametrize('call,message', [
    (lambda: gd.LearnedSlerp(128, counts=(8,)*7), 'counts: 8 numbers are wanted, one a group, not 7'),
    (lambda: gd.LearnedSlerp(128, counts=(16,)*8), 'counts: whole numbers from 0 to 15'),
    (lambda: gd.LearnedSlerp(128, bias=(0.,)), 'bias: 8 numbers'),
    (lambda: gd.LearnedSlerp(128, division=torch.ones(128, 128)), 'division: orthonormal columns'),
    (lambda: gd.LearnedSlerp(128, division=torch.eye(64)), r'division: shape \(128, 128\) is wanted'),
    (lambda: gd.LearnedSlerp(128, replacement_dropout=True), 'none of the official habits'),
    (lambda: gd.LearnedSlerp(128).split(torch.ones(2, 100)), 'z: shape'),
    (lambda: gd.budget(torch.zeros(8), 100, 4, 12), 'total: 32 to 96 is wanted, not 100'),
    (lambda: gd.Lesson(8, 16, parts=['turn']), "parts: some of .* not \\['turn'\\]"),
    (lambda: gd.Population(unit(5, 8), torch.arange(5)), 'nobody has two templates'),
    (lambda: gd.Population(torch.ones(5, 8), torch.zeros(5).long()), 'normalise')])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message): call()
