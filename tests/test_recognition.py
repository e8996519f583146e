"""Golden parity, a training that is killed, and bad input, for faceprivacy.recognition"""
import json, os, signal, subprocess, sys
from pathlib import Path
import numpy as np, onnx, pytest, torch, torch.nn.functional as F
from torch.utils.data import TensorDataset
from faceprivacy import recognition as rec
from golden_rule import assert_golden, golden_input, golden_state

GOLDEN = Path(__file__).parent/'golden'

@pytest.mark.parametrize('name,module,output', [
    ('ir18', 'ir18', 'ir18.out'), ('ir50', 'slerpface_ir50', 'slerpface_ir50.vector')])
def test_networks_have_the_official_keys_and_output(name, module, output):
    official = json.loads((GOLDEN/'tface_state_dict.json').read_text())[module]
    net = rec.backbone(name).eval()
    assert {k: list(v.shape) for k, v in net.state_dict().items()} == {
        k: v for k, v in official.items() if not k.startswith('group_')}  # SlerpFace's group heads
    net.load_state_dict(golden_state(module, net.state_dict()))
    face = golden_input('input.face', (2, 3, 112, 112), 'random')*2 - 1
    with torch.inference_mode(): out = net(face)
    assert_golden(out, np.load(GOLDEN/'tface_networks.npz'), output, 1e-4)

def independent(name, cos, norm, m, s, mean=20., std=100., h=.333):
    "The true person's logit, from angles, one number at a time"
    theta = np.arccos(cos)
    if name == 'Softmax': value = cos
    if name == 'CosFace': value = cos - m
    if name == 'ArcFace': value = np.cos(theta + m) if theta + m < np.pi else cos - m*np.sin(np.pi - m)
    if name == 'AdaFace':
        k = np.clip((np.clip(norm, 1e-3, 100) - mean)/(std + 1e-3)*h, -1, 1)
        value = np.cos(np.clip(theta - m*k, 1e-3, np.pi - 1e-3)) - (m + m*k)
    return s*value

@pytest.mark.parametrize('name', rec.HEADS)
@pytest.mark.parametrize('margin', [0., .4])
def test_heads_equal_an_independent_computation(name, margin):
    torch.manual_seed(0)
    head = rec.margin_head(name, 8, 5, scale=16., margin=margin).eval()
    if name == 'AdaFace': head.std.fill_(10.)
    z, person = torch.randn(40, 8)*torch.linspace(.1, 60, 40)[:, None], torch.arange(40) % 5
    z[:5] = -5*head.weight[:5].detach()/head.weight[:5].norm(dim=1, keepdim=True).detach()  # theta = pi
    logits = head(z, person).detach().double().numpy()
    a, w = z.double().numpy(), head.weight.detach().double().numpy()
    cos = (a/np.linalg.norm(a, axis=1, keepdims=True)) @ (w/np.linalg.norm(w, axis=1, keepdims=True)).T
    want = 16*cos
    for i, p in enumerate(person):
        want[i, p] = independent(name, np.clip(cos[i, p], -1, 1), np.linalg.norm(a[i]), margin, 16, std=10.)
    np.testing.assert_allclose(logits, want, atol=.03)    # arccos near pi in float32
    np.testing.assert_allclose(logits[5:], want[5:], atol=2e-4)

@pytest.mark.parametrize('name', rec.HEADS)
def test_gradients_are_finite_at_the_poles(name):
    head = rec.margin_head(name, 3, 3)
    head.weight.data = torch.eye(3)
    z = torch.tensor([[1., 0, 0], [-1, 0, 0], [0, 1, 0]], requires_grad=True)
    F.cross_entropy(head(z, torch.tensor([0, 0, 2])), torch.tensor([0, 0, 2])).backward()
    assert z.grad.isfinite().all() and head.weight.grad.isfinite().all()

def test_arcface_jumps_down_where_the_cosine_would_rise_again():
    head = rec.ArcFace(2, 1, scale=1., margin=.5)
    head.weight.data = torch.tensor([[1., 0]])
    def at(theta): return head(torch.tensor([[np.cos(theta), np.sin(theta)]]).float(), torch.tensor([0])).item()
    edge = np.pi - .5
    assert at(edge - .01) == pytest.approx(-1, abs=1e-3)
    assert at(edge + .01) == pytest.approx(np.cos(edge + .01) - .5*np.sin(.5), abs=1e-4)
    assert at(edge + .01) < at(edge - .01) - .1

def test_adaface_watches_norms_while_training_only():
    head = rec.AdaFace(2, 3)
    z, person = torch.tensor([[3., 0], [0, 5]]), torch.tensor([0, 1])
    head(z, person)
    assert head.mean.item() == pytest.approx(.99*20 + .01*4)
    assert head.std.item() == pytest.approx(.99*100 + .01*2**.5)
    before = head.mean.item()
    head.eval()(z, person)
    head.train()(z[:1], person[:1])  # one norm has no deviation
    assert head.mean.item() == before

def toy():
    g = torch.Generator().manual_seed(0)
    pattern = F.interpolate(torch.rand(3, 3, 4, 4, generator=g), size=112).repeat_interleave(8, 0)
    return TensorDataset((pattern*255).byte(), torch.arange(3).repeat_interleave(8))

def go(checkpoint=None, data=None, **kw):
    "Train a small network; its history, and every number it ends with"
    torch.manual_seed(0)
    model, head = rec.backbone('small', dim=16), rec.AdaFace(16, 3, scale=16.)
    kw = dict(epochs=4, batch=8) | kw
    history = rec.train(model, head, data or toy(), checkpoint=checkpoint, **kw)
    return history, model.state_dict() | {f'head.{k}': v for k, v in head.state_dict().items()}

KILL = '''
import os, signal, sys
from pathlib import Path
from accelerate import Accelerator
from test_recognition import go
save, saved = Accelerator.save_state, []
def save_and_die(self, folder):
    save(self, folder)
    saved.append(folder)
    if len(saved) == 3: os.kill(os.getpid(), signal.SIGKILL)  # written, not yet renamed
Accelerator.save_state = save_and_die
go(Path(sys.argv[1]))
'''

def test_a_killed_training_resumes_to_the_same_bits(tmp_path):
    done = subprocess.run([sys.executable, '-c', KILL, tmp_path], cwd=Path(__file__).parent,
                          capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ['after_0000002', 'new.tmp']
    history, state = go()
    again, resumed = go(tmp_path)
    assert again == history
    for k in state: assert torch.equal(state[k], resumed[k]), k
    assert [f.name for f in tmp_path.iterdir()] == ['after_0000004']
    assert go(tmp_path)[0] == history  # a finished training is not repeated

def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    a, b, c = go(epochs=1), go(epochs=1), go(epochs=1, seed=1)
    assert a[0] == b[0] and all(torch.equal(a[1][k], b[1][k]) for k in a[1])
    assert a[0] != c[0]

def test_a_training_with_other_settings_is_not_resumed(tmp_path):
    go(tmp_path, epochs=1)
    with pytest.raises(ValueError, match='epochs was 1, is 2.*delete the folder'): go(tmp_path, epochs=2)
    other = TensorDataset(255 - toy().tensors[0], toy().tensors[1])
    with pytest.raises(ValueError, match='data was'): go(tmp_path, other, epochs=1)

@pytest.mark.parametrize('change,error,message', [
    (lambda x, p: (x.float(), p), TypeError, 'images: uint8 .* not torch.float32'),
    (lambda x, p: (x, p + 1), ValueError, 'people 1 to 3 are wanted within 0 to 2'),
    (lambda x, p: (x[:7], p[:7]), ValueError, '7 images do not fill a batch of 8')])
def test_bad_training_data_is_refused(change, error, message):
    with pytest.raises(error, match=message): go(data=TensorDataset(*change(*toy().tensors)))

def test_a_loss_that_is_lost_is_said():
    with pytest.raises(FloatingPointError, match='lower lr'): go(lr=1e12, optimizer='sgd')

@pytest.mark.parametrize('call,message', [
    (lambda: rec.backbone('ir17'), "network 'ir17' is unknown"),
    (lambda: rec.margin_head('Arc', 2, 2), "head 'Arc' is unknown"),
    (lambda: rec.embed(rec.backbone('small'), torch.zeros(1, 3, 112, 112), order='bgra'), 'order: '),
    (lambda: rec.embed(rec.backbone('small'), torch.zeros(0, 3, 112, 112)), 'images: none')])
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_weights_that_do_not_fit_are_named(tmp_path):
    net = rec.backbone('small')
    state = {f'module.{k}': v for k, v in net.state_dict().items()}
    torch.save(dict(state, **{'module.group_cov.0.weight': torch.zeros(2)}), tmp_path/'a.pth')
    with pytest.raises(ValueError, match='1 entries differ: group_cov.0.weight is unknown'):
        rec.load_weights(rec.backbone('small'), tmp_path/'a.pth')
    rec.load_weights(rec.backbone('small'), tmp_path/'a.pth', skip=('group_',))
    torch.save(dict(list(net.state_dict().items())[1:]), tmp_path/'b.pth')
    with pytest.raises(ValueError, match='input_layer.0.weight is missing'):
        rec.load_weights(rec.backbone('small'), tmp_path/'b.pth')
    with pytest.raises(FileNotFoundError, match='no weights at'): rec.load_weights(net, tmp_path/'c.pth')

class Harm:
    def __reduce__(self): return os.system, ('exit 1',)

def test_a_pickle_that_runs_something_is_not_opened(tmp_path):
    torch.save(dict(harm=Harm()), tmp_path/'harm.pth')
    (tmp_path/'noise.pth').write_bytes(b'noise')
    for name in ('harm', 'noise'):
        with pytest.raises(ValueError, match='not a file of tensors and nothing else'):
            rec.load_weights(rec.backbone('small'), tmp_path/f'{name}.pth')

def test_onnx_with_a_fixed_batch_and_a_wrong_size(tmp_path):
    net = rec.backbone('small').eval()
    rec.save_onnx(tmp_path/'one.onnx', net, batch=1)
    x = torch.rand(3, 3, 112, 112)*2 - 1
    theirs = rec.Onnx(tmp_path/'one.onnx', threads=1)
    assert (theirs.most, theirs.size, theirs.dim) == (1, 112, 128)
    torch.testing.assert_close(rec.embed(theirs, x), rec.embed(net, x), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match='112 x 112 are wanted'): theirs(x[..., :96, :96])

def test_onnx_that_is_no_recogniser(tmp_path):
    (tmp_path/'noise.onnx').write_bytes(b'noise'*20)
    with pytest.raises(ValueError, match='insightface cannot open it'): rec.Onnx(tmp_path/'noise.onnx')
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['x'], ['y'])], 'relu',
        [tensor('x', 1, [1, 3, 100, 100])], [tensor('y', 1, [1, 3, 100, 100])])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 13)], ir_version=8),
              tmp_path/'relu.onnx')
    with pytest.raises(ValueError, match='is no recogniser to insightface'): rec.Onnx(tmp_path/'relu.onnx')
    with pytest.raises(FileNotFoundError, match='no .onnx file'): rec.Onnx(tmp_path/'relu')

def test_real_recognisers_open(real_data):
    x = torch.rand(2, 3, 112, 112)*2 - 1
    for name in ('mobilefacenet_foamliu', 'mobilefacenet_mxnet'):
        net = rec.Onnx(real_data/'models'/f'{name}.onnx')
        assert rec.embed(net, x).shape == (2, 128)
        pixels = ((x + 1)*127.5).round().byte()
        bgr = list(pixels.flip(1).permute(0, 2, 3, 1).numpy())
        torch.testing.assert_close(torch.from_numpy(net.net.get_feat(bgr)), rec.raw_embeddings(net, pixels),
                                   atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError): rec.Onnx(real_data/'models'/'retinaface_mnet025.onnx')

def test_the_learning_rate_climbs_and_falls():
    assert [rec.rate(t) for t in (0, .05, .1, .55, 1, 1.1)] == pytest.approx([0, .5, 1, .5, 0, 0])
    with pytest.raises(ValueError, match="optimizer 'adam' is unknown"): rec.optimise('adam', [rec.backbone('small')], 1.)
