"""Speed of the lean denoiser against diffusers' UNets, of schedulers, and of training: python tests/bench_template_diffusion.py"""
import time

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from faceprivacy.template_diffusion import SCHEDULERS, new_pipeline, train_diffusion

torch.set_num_threads(2)
N = 16


def rate(call, n=N, repeats=3):
    "Images a second, the best of a few runs"
    def once():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    once()
    return n/min(once() for _ in range(repeats))


def unet(widths):
    "diffusers' UNet on the same grid, with the template as one token"
    return UNet2DConditionModel(
        sample_size=8, in_channels=32, out_channels=32, block_out_channels=widths, cross_attention_dim=128,
        down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'), up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'),
        layers_per_block=2, attention_head_dim=8)


def both(forward, parameters):
    "Images a second of forward, and of forward and backward"
    def backward():
        forward().square().mean().backward()
        for p in parameters: p.grad = None
    with torch.no_grad(): alone = rate(forward)
    return alone, rate(backward)


if __name__ == '__main__':
    g = torch.Generator().manual_seed(0)
    x = torch.rand(64, 3, 64, 64, generator=g)*2 - 1
    z = F.normalize(torch.randn(64, 128, generator=g))
    pipe = new_pipeline(x, z)
    lean, latents, t = pipe.denoiser, torch.randn(N, 32, 8, 8, generator=g), torch.full((N,), 500)
    def million(m): return sum(p.numel() for p in m.parameters() if p.requires_grad)/1e6
    hint = lean.hint(z[:N])
    ours = both(lambda: lean(latents, t, z[:N], hint), lean.parameters())
    print(f'lean denoiser        {million(lean):5.1f} M  forward {ours[0]:6.0f}/s  training step {ours[1]:6.0f}/s')
    for widths in ((128, 256), (256, 512)):
        model = unet(widths)
        found = both(lambda: model(latents, t, z[:N, None]).sample, model.parameters())
        print(f'UNet2DConditionModel {million(model):5.1f} M  forward {found[0]:6.0f}/s  training step {found[1]:6.0f}/s'
              f'  lean is {ours[0]/found[0]:.1f} and {ours[1]/found[1]:.1f} times as fast')
    times = {n: rate(lambda: pipe.use(n)(z[:N], steps=20, generator=g), repeats=1) for n in SCHEDULERS}
    for n, r in times.items(): print(f'{n:5} 20 steps, guided: {r:5.1f} images/s')
    plain = rate(lambda: pipe.use('dpm')(z[:N], steps=20, guidance=1, generator=g), repeats=1)
    print(f"dpm   without guidance: {plain:5.1f} images/s, {plain/times['dpm']:.1f} times as fast")
    long = rate(lambda: pipe.use('ddpm')(z[:4], steps=250, generator=g), 4, 1)
    print(f"dpm in 20 steps against ddpm in 250: {times['dpm']/long:.1f} times as fast")
    rates = {p: rate(lambda: train_diffusion(pipe, x, z, 3, batch=32, precision=p), 96, 1) for p in ('no', 'bf16')}
    print(f"training float32 {rates['no']:.0f} images/s, bf16 {rates['bf16']:.0f}, {rates['bf16']/rates['no']:.1f} times as fast")
