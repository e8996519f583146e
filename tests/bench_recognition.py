"""Speed of the recognisers on two threads: `python tests/bench_recognition.py`

Images a second in training (forward, backward) and in embedding, and what each choice in `small` is worth.
The variants take turns and the best turn of each counts, so that a busy machine disturbs them alike.
"""
import time
from functools import partial
from tempfile import TemporaryDirectory
import torch, torch.nn as nn
from faceprivacy.recognition import IR, Onnx, backbone, cost, save_onnx
from faceprivacy.training import half

torch.set_num_threads(2)

class Depthwise(nn.Sequential):
    "MobileFaceNet's unit: 1x1 wider, 3x3 depthwise, 1x1"
    def __init__(self, i, o, stride):
        super().__init__(
            nn.Conv2d(i, 2*i, 1, bias=False), nn.BatchNorm2d(2*i), nn.PReLU(2*i),
            nn.Conv2d(2*i, 2*i, 3, stride, 1, groups=2*i, bias=False), nn.BatchNorm2d(2*i), nn.PReLU(2*i),
            nn.Conv2d(2*i, o, 1, bias=False), nn.BatchNorm2d(o))

def depthwise():
    "`small` with MobileFaceNet's units, of about the same arithmetic"
    net = backbone('small')
    net.input_layer = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.PReLU(32))
    net.body = nn.Sequential(*[Depthwise(*s) for s in [
        (32, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1), (64, 64, 2)]])
    return net

def jobs(model, last=True, n=64, precision='no'):
    "What is timed: a training step and an embedding of n images"
    layout = torch.channels_last if last else torch.contiguous_format
    model, x = model.to(memory_format=layout), torch.rand(n, 3, 112, 112).to(memory_format=layout)
    weight = torch.randn(n, model.dim)
    def step():
        model.train().zero_grad()
        with half(precision, 'cpu'): z = model(x)
        (z*weight).sum().backward()
    @torch.inference_mode()
    def embed():
        with half(precision, 'cpu'): model.eval()(x)
    return dict(training=(step, n), embedding=(embed, n))

def main(turns=8):
    prelu = partial(IR, (1, 2, 1), (16, 32, 64), 128, stem=2)
    nets = {'small': backbone('small'), 'small, channels first': backbone('small'), 'small, PReLU': prelu(),
            'small, depthwise': depthwise(), 'small, bf16': backbone('small'), 'small, depthwise, bf16': depthwise(),
            'ir18': backbone('ir18')}
    work = {k: jobs(net, k != 'small, channels first', 8 if k == 'ir18' else 64, 'bf16' if 'bf16' in k else 'no')
            for k, net in nets.items()}
    with TemporaryDirectory() as place:
        save_onnx(f'{place}/small.onnx', backbone('small'))
        onnx, x = Onnx(f'{place}/small.onnx'), torch.rand(64, 3, 112, 112)*2 - 1
    work['small, ONNX'] = dict(embedding=(lambda: onnx(x), 64))
    best = {}
    for _ in range(turns):
        for name, parts in work.items():
            for part, (f, n) in parts.items():
                begin = time.perf_counter()
                f()
                speed = n/(time.perf_counter() - begin)
                best[name, part] = max(best.get((name, part), 0), speed)
    for name, net in nets.items():
        print(f"{name:22}{cost(net)['macs']/1e6:8.1f} M multiply-adds, training {best[name, 'training']:7.1f}/s, "
              f"embedding {best[name, 'embedding']:7.1f}/s")
    for (name, part), speed in best.items():
        if name != 'small': print(f"ratio small / {name}, {part}: {best['small', part]/speed:.2f}")

if __name__ == '__main__': main()
