"""M + W + G per frame at the official sizes, fast against plain: `python tests/bench_liveportrait.py`

Plain is a forward in single precision, module by module, one frame at a time, of the same (random) weights. The
ways take turns and the best turn of each counts, so that a busy machine disturbs them alike; processor time, of both
threads together, is given too, since other programs change it less. Two threads; on a GPU also W + G in half
precision, as it is and compiled, 1 to 16 frames at a time, to be set beside the paper's 12.8 ms.
"""
import os
import time
from functools import partial

os.environ.setdefault('GOMP_SPINCOUNT', '1000')  # as make sets it
import torch

from faceprivacy.fast_liveportrait import FastLivePortrait
from faceprivacy.keypoints import transform
from faceprivacy.liveportrait import LivePortrait

THREADS, TURNS, BATCH = 2, 3, 2


def measured_weights(model):
    "Random weights with norms as after training, so that signals keep their size through the layers"
    generator = torch.Generator().manual_seed(0)
    for name, v in model.state_dict().items():
        if not v.is_floating_point() or name.endswith(('weight_u', 'weight_v')): continue
        noise = torch.randn(v.shape, generator=generator).to(v.device)
        if name.endswith('running_var'): v.copy_(.5 + noise.sigmoid())
        elif v.ndim > 1: v.copy_(noise/v[0].numel()**.5)
        elif name.endswith('weight'): v.copy_(1 + .1*noise)
        else: v.copy_(.05*noise)
    for layer in model.modules():
        if hasattr(layer, 'weight_orig'):
            for _ in range(10): layer.renew()
    return model


def seconds(f, device):
    "(2,): by the clock, and of the processor"
    start = time.perf_counter(), time.process_time()
    f()
    if device == 'cuda': torch.cuda.synchronize()
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.double) - torch.tensor(start)


@torch.no_grad()
def main():
    torch.set_num_threads(THREADS)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = measured_weights(LivePortrait().eval().requires_grad_(False)).to(device)
    x = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)).to(device)
    noise = torch.randn(BATCH, 21, 3, generator=torch.Generator().manual_seed(2)).to(device)
    source = model.source(x)
    moved = transform(source.motion) + .03*noise
    whole = x.expand(BATCH, -1, -1, -1)

    def frames(way, source, batch):
        "M + W + G of BATCH frames, `batch` at a time; M reads a driving picture of the same size"
        for i in range(0, BATCH, batch):
            way.read(whole[i:i + batch])
            yield way.render(source, moved[i:i + batch])

    low = torch.float16 if device == 'cuda' else torch.bfloat16
    types = dict(float32=torch.float32) | {str(low).removeprefix('torch.'): low}
    work = {'plain, float32': partial(frames, model, source, 1)}
    for name, dtype in types.items():
        way = FastLivePortrait(model, dtype)
        for batch in (1, BATCH): work[f'fast, {name}, {batch} at a time'] = partial(frames, way, way.source(x), batch)
    found = {name: torch.cat(list(f())) for name, f in work.items()}
    best = dict.fromkeys(work, torch.full((2,), float('inf'), dtype=torch.double))
    for _ in range(TURNS):
        for name, f in work.items(): best[name] = best[name].minimum(seconds(lambda: list(f()), device)/BATCH)
    want = found['plain, float32']
    print(f'M + W + G at 256 -> 512 pixels, {device}, {THREADS} threads, best of {TURNS} turns')
    for name, t in best.items():
        (clock, cpu), (times, cpu_times) = t.tolist(), (best['plain, float32']/t).tolist()
        off = (found[name] - want).norm()/want.norm()
        spread = (found[name] - want).std()/want.std()
        print(f'{name:30s} {1e3*clock:6.0f} ms a frame, {times:.2f} times plain ({1e3*cpu:.0f} ms of the processor, '
              f'{cpu_times:.2f} times); '
              f'error {off:.1e} of the output, {spread:.1e} of its deviation')
    if device == 'cuda': on_gpu(model, x, moved)


def on_gpu(model, x, moved):
    "W + G alone and from picture to picture, half precision: as they are, then compiled"
    for compiled in (False, True):
        way = FastLivePortrait(model, torch.float16, compile=compiled)
        source = way.source(x)
        for batch in (1, 4, 16):
            whole, points = x.expand(batch, -1, -1, -1), moved[:1].expand(batch, -1, -1)
            for name, f in {'W + G': lambda: way.render(source, points),
                            'M + W + G': lambda: (way.read(whole), way.render(source, points))}.items():
                for _ in range(3): f()
                t = min(seconds(f, 'cuda')[0].item() for _ in range(20))/batch
                print(f'{name}, float16{", compiled" if compiled else ""}, {batch} at a time: {1e3*t:.2f} ms a frame, '
                      f'{1/t:.0f} frames a second (paper: 12.8 ms for W + G on an RTX 4090)', flush=True)


if __name__ == '__main__': main()
