"""Inversion: bad input, networks in ONNX against onnxruntime, checkpoints, and files that are not ours."""
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from faceprivacy import inversion, onnx_graph
from faceprivacy.core import path, save_tensors
from faceprivacy.inversion import Decoder, Judge
from faceprivacy.onnx_graph import Graph, open_network
from faceprivacy.recognition import Onnx, backbone, save_onnx


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return Decoder(.01*torch.randn(17, 3*8**2), (16, 8, 8)).eval()


@pytest.fixture
def z():
    return F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize('spoil, error, message', [
    (lambda z: F.normalize(z[:, :9]), ValueError, 'templates of 9 numbers, this decoder wants 16'),
    (lambda z: 3*z, ValueError, 'has length 3, not 1: normalise'),
    (lambda z: z*torch.nan, ValueError, 'z: holds NaN or infinity'),
    (lambda z: z[0], ValueError, r'shape \(b, d\) is wanted'),
    (lambda z: z.numpy(), TypeError, 'want a tensor, got ndarray'),
    (lambda z: (99*z).int(), TypeError, 'floats are wanted')])
def test_templates_that_are_none(decoder, z, spoil, error, message):
    with pytest.raises(error, match=message): decoder.invert(spoil(z))


def test_any_number_of_templates_in_any_batch(decoder, z):
    assert decoder.invert(z).shape == (5, 3, 16, 16)
    torch.testing.assert_close(decoder.invert(z, batch=2), decoder.invert(z), atol=1e-5, rtol=0)


def test_a_base_of_no_square_picture():
    with pytest.raises(ValueError, match='base: 100 columns'): Decoder(torch.zeros(17, 100))
    with pytest.raises(ValueError, match='a size that 16 divides'): Decoder(torch.zeros(17, 3*12**2))


def test_a_decoder_comes_back(decoder, z, tmp_path):
    torch.nn.init.normal_(decoder.last.weight, std=.1)
    inversion.save_decoder(tmp_path/'decoder.safetensors', decoder)
    back = inversion.load_decoder(tmp_path/'decoder.safetensors')
    torch.testing.assert_close(back.invert(z), decoder.invert(z), atol=.01, rtol=0)


def test_files_that_hold_no_decoder(tmp_path):
    with pytest.raises(FileNotFoundError, match='run the stage that makes them first'):
        inversion.load_decoder(tmp_path/'none.safetensors')
    save_tensors(tmp_path/'foreign.safetensors', weight=torch.zeros(3))
    with pytest.raises(ValueError, match='holds no decoder of save_decoder'):
        inversion.load_decoder(tmp_path/'foreign.safetensors')
    (tmp_path/'half.safetensors').write_bytes(b'\x10\0\0\0\0\0\0\0{"a":')
    with pytest.raises(ValueError, match='not a whole safetensors file'):
        inversion.load_decoder(tmp_path/'half.safetensors')


def test_judges_come_back(z, tmp_path):
    judge = Judge(None, dict(fmr_1=.5), z, z.flip(0))
    inversion.save_judges(tmp_path/'judges.safetensors', dict(a=judge), z=z)
    back, rest = inversion.load_judges(tmp_path/'judges.safetensors', a=None)
    assert back['a'].thresholds == judge.thresholds and rest.keys() == {'z'}
    assert torch.equal(back['a'].photo, judge.photo) and torch.equal(back['a'].other, judge.other)
    with pytest.raises(ValueError, match="holds no judge 'b'"):
        inversion.load_judges(tmp_path/'judges.safetensors', b=None)


def test_too_few_strangers(z):
    with pytest.raises(ValueError, match='5 make 10 pairs, too few for an FMR of 0.001'):
        inversion.stranger_thresholds(z)


def test_no_victim_is_known_to_the_attacker():
    case = inversion.open_case(path('data/people'), open_network('data/networks/small.safetensors'),
                               victims=4, shots=2, strangers=20, seed=3)
    assert len(case.z) == 8 and case.known.shape[1:] == (3, 64, 64) and len(case.strangers) == 20
    assert (case.z @ case.known_z.T).max() < .999  # no photo of a victim among the attacker's
    assert (case.photo != case.other).any(1).any(1).any(1).all()


@pytest.mark.parametrize('name', ['small', 'ir18'])
def test_a_graph_computes_what_onnxruntime_does(name, tmp_path):
    torch.manual_seed(0)
    save_onnx(tmp_path/'net.onnx', backbone(name).eval())
    x = torch.rand(2, 3, 112, 112)*2 - 1
    found, wanted = Graph(tmp_path/'net.onnx').run(x), Onnx(tmp_path/'net.onnx')(x)
    torch.testing.assert_close(F.normalize(found), F.normalize(wanted), atol=1e-4, rtol=0)


@pytest.mark.parametrize('name', ['mobilefacenet_foamliu', 'mobilefacenet_mxnet'])
def test_published_networks_as_graphs(real_data, name):
    file = real_data/'models'/f'{name}.onnx'
    x = (torch.rand(2, 3, 112, 112)*2 - 1).requires_grad_()
    net = open_network(file)
    torch.testing.assert_close(net(x), Onnx(file)(x.detach()), atol=1e-4, rtol=0)
    assert torch.autograd.grad(net(x).sum(), x)[0].abs().sum() > 0


def test_an_operation_we_do_not_know(tmp_path, monkeypatch):
    save_onnx(tmp_path/'net.onnx', backbone('small').eval())
    monkeypatch.delitem(onnx_graph.OPS, 'Relu')
    with pytest.raises(ValueError, match='operation Relu is none of Conv'): Graph(tmp_path/'net.onnx')


TRAINING = textwrap.dedent('''
    import os, signal, torch
    from faceprivacy import inversion, onnx_graph
    def training(folder, dies):
        generator = torch.Generator().manual_seed(0)
        z = torch.nn.functional.normalize(torch.randn(20, 8, generator=generator))
        known = torch.randint(256, (20, 3, 16, 16), generator=generator).byte()
        case = inversion.Case(z, known, known, torch.arange(20), z, known, known)
        made, calls = torch.randn(10, 8, generator=generator), []
        def net(x):
            calls.append(0)
            if len(calls) == dies: os.kill(os.getpid(), signal.SIGKILL)
            return x.flatten(1)[:, ::4096] @ made
        return inversion.train_decoder(case, [net], 6, checkpoint=folder, every=2, batch=4)[1]
''')


def test_a_killed_training_reaches_the_same_loss(tmp_path):
    command = f'{TRAINING}\ntorch.set_num_threads(1); training({str(tmp_path/"cut")!r}, 6)'
    killed = subprocess.run([sys.executable, '-c', command], capture_output=True, text=True, cwd=path())
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [f.name for f in (tmp_path/'cut').iterdir()] == ['after_0000004']
    exec(TRAINING, names := {})
    resumed, whole = names['training'](tmp_path/'cut', 0), names['training'](tmp_path/'whole', 0)
    assert resumed == pytest.approx(whole, abs=1e-5)


def test_training_in_half_precision_stays_near():
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(20, 128, generator=generator))
    known = torch.randint(256, (20, 3, 64, 64), generator=generator).byte()
    case = inversion.Case(z, known, known, torch.arange(20), z, known, known)
    torch.manual_seed(0)
    net = backbone('small').eval().requires_grad_(False)
    plain, half = (inversion.train_decoder(case, [net, net], 4, precision=p, batch=4)[1] for p in ('no', 'bf16'))
    assert half != plain and half == pytest.approx(plain, rel=.03)


def test_a_recogniser_in_half_precision_sees_its_own_steps(monkeypatch):
    def step(model, head, data, *_, **__):
        x, seen = data[:4][0].float()/127.5 - 1, []
        for shift in (0., .1):
            for p in model.parameters(): p.data += shift
            seen.append(model(x))
        assert seen[0].dtype == torch.bfloat16 and not torch.equal(*seen)
    monkeypatch.setattr(inversion, 'train', step)
    inversion.train_recogniser(2, 2, 1, 0, precision='bf16')


def test_steering_has_its_own_number_of_steps(decoder, z):
    class Pipe:
        def encode(self, x): return x
        def invert(self, z, **options):
            given.append((options['steps'], 'pull' in options, options['guidance']))
    given = []
    for draw in inversion.samplers(Pipe(), decoder, None, steps=3, steered=7, guidance=2.).values(): draw(z)
    assert sorted(given) == [(3, False, 2.)]*3 + [(7, True, 2.)]


def test_perfect_pictures():
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))*2 - 1
    found = inversion.pixel_measures(x, x)
    assert found['ssim'] == pytest.approx(1) and found['psnr'] > 90
