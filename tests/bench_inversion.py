"""How fast inversion is, on 2 threads: `python tests/bench_inversion.py`. Untrained weights cost the same."""
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from faceprivacy.inversion import Decoder, inversion_loss
from faceprivacy.onnx_graph import Graph
from faceprivacy.recognition import Onnx, backbone, save_onnx
from faceprivacy.template_diffusion import new_pipeline

torch.set_num_threads(2)


def seconds(f, times=3):
    "The shortest of some runs, after one to warm up"
    f()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        found.append(time.perf_counter() - start)
    return min(found)


def line(name, slow, fast): print(f'{name:62} {slow:8.3f} s {fast:8.3f} s   x{slow/fast:.2f}')


def main():
    z, x = F.normalize(torch.randn(64, 128)), torch.randint(256, (64, 3, 64, 64)).byte()
    decoder, pipe = Decoder(torch.zeros(129, 3*32**2)).eval(), new_pipeline(x, z)
    def draw(name, steps): return lambda: pipe.use(name).invert(z[:16], steps=steps, guidance=2.5)
    ddpm, dpm = seconds(draw('ddpm', 100), 1), seconds(draw('dpm', 20))
    line('16 faces: DDPM 100 steps / DPM-Solver++ 20 steps', ddpm, dpm)
    line('16 faces: DPM-Solver++ 20 steps / decoder', dpm, seconds(lambda: decoder.invert(z[:16])))
    with tempfile.TemporaryDirectory() as folder:
        save_onnx(Path(folder)/'net.onnx', backbone('ir18').eval())
        graph, given = Graph(Path(folder)/'net.onnx'), Onnx(Path(folder)/'net.onnx')
    faces, g = torch.rand(8, 3, 112, 112)*2 - 1, torch.Generator()
    with torch.no_grad(): line('8 templates of an IR-18: Graph / onnxruntime', seconds(lambda: graph.run(faces)), seconds(lambda: given(faces)))
    small = backbone('small').eval()
    def step(identity):
        made = inversion_loss(decoder, [small], z[:16], x[:16]/127.5 - 1, g) if identity else F.l1_loss(decoder(z[:16]), x[:16]/127.5 - 1)
        made.backward()
    line('a step of training, 16 faces: with / without identity', seconds(lambda: step(True)), seconds(lambda: step(False)))


if __name__ == '__main__': main()
