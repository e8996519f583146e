"""e and d against the straightforward way, folded training against training written out, and protection per image.

    python tests/bench_minusface.py

Straightforward: a picture eight times as large, unfolded, transformed, folded again and made smaller, as the official
code does it. Two threads; weights are fresh, which costs the same."""
import time
import torch, torch.nn as nn, torch.nn.functional as F
from faceprivacy.block_dct import TO_RGB, TO_YCC, dct_matrix, decode, encode
from faceprivacy.minusface import SETTINGS, let_pass, recogniser, stage_one_losses
from faceprivacy.subtraction import MinusFace, UNet, channel_orders, generator_cost, shuffle
from faceprivacy.recognition import backbone, cost, margin_head

THREADS = 2

def straight_e(x):
    big = F.interpolate(127.5*(x + 1), scale_factor=8, mode='bilinear', align_corners=True)
    big = torch.einsum('pc,bchw->bphw', TO_YCC.to(x), big)
    big[:, 0] -= 128
    blocks, D = F.unfold(big.flatten(0, 1)[:, None], 8, stride=8).mT.unflatten(2, (8, 8)), dct_matrix().to(x)
    return (D @ blocks @ D.T).flatten(2).mT.reshape(len(x), 192, *x.shape[2:])

def straight_d(c):
    (b, _, h, w), D = c.shape, dct_matrix().to(c)
    blocks = D.T @ c.reshape(3*b, 64, h*w).mT.unflatten(2, (8, 8)) @ D
    big = F.fold(blocks.flatten(2).mT, (8*h, 8*w), 8, stride=8).view(b, 3, 8*h, 8*w)
    big = torch.einsum('pc,bchw->bphw', TO_RGB.to(c), big)/255 + 128/255
    return F.interpolate(big, (h, w), mode='bilinear', align_corners=True).clamp(0, 1)

def seconds(f, times=5):
    "The shortest of some runs, after one to warm up"
    f()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        f()
        found.append(time.perf_counter() - start)
    return min(found)

def line(name, slow, fast): print(f'{name:66} {1e3*slow:9.1f} ms {1e3*fast:9.1f} ms   x{slow/fast:.1f}')

def written_out(model, x, person):
    g, f, coefs = model['generator'], model['recogniser'], encode(x)
    made = g(coefs)
    return 5*F.l1_loss(2*decode(made) - 1, x) + F.cross_entropy(model['head'](f(coefs - made), person), person)

def folded(model, x, person):
    found = stage_one_losses(model, x, person)
    return 5*found['gen'] + found['fr']

def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    faces = torch.rand(16, 3, 112, 112)*2 - 1
    print(f'{THREADS} threads, 112 x 112 pixels')
    for b in 1, 4, 16:
        x = faces[:b]
        c = encode(x)
        line(f'e, {b} images: straightforward / banded', seconds(lambda: straight_e(x)), seconds(lambda: encode(x)))
        line(f'd, {b} images: straightforward / weighted sum', seconds(lambda: straight_d(c)), seconds(lambda: decode(c)))
        line(f'e and d, {b} images', seconds(lambda: straight_d(straight_e(x))), seconds(lambda: decode(encode(x))))
    x = faces[:2].double()
    apart = (straight_d(straight_e(x)) - decode(encode(x))).abs().max()
    apart_e = (straight_e(x) - encode(x)).abs().max()/straight_e(x).abs().max()
    print(f'they differ by at most {apart:.1e}, coefficients by {apart_e:.1e} of the largest')

    small, released = UNet(widths=SETTINGS['small'].widths), UNet()
    with torch.inference_mode():
        orders = channel_orders(1)
        def plain(g):
            coefs = straight_e(faces[:1])
            return straight_d(shuffle(coefs - g(coefs), orders))
        scheme, big = MinusFace(small.requires_grad_(False)), MinusFace(released.requires_grad_(False))
        ours = seconds(lambda: scheme.protect(faces[:1], secrets=orders))
        line('protect one image, small g: straightforward / ours', seconds(lambda: plain(small)), ours)
        line('protect one image, released g: straightforward / ours', seconds(lambda: plain(released)),
             seconds(lambda: big.protect(faces[:1], secrets=orders), 3))
        line('protect one image: released g / small g', seconds(lambda: big.protect(faces[:1]), 3), ours)

        some = F.interpolate(faces, (56, 56)).repeat(2, 1, 1, 1)  # a batch of stage 2, where g is at rest
        many = channel_orders(len(some))
        def layer_by_layer():
            coefs = encode(some)
            return decode(shuffle(coefs - small(coefs), many))
        apart = (layer_by_layer() - scheme.protect(some, secrets=many)).abs().max()
        line('protect 32 of 56 pixels: layer by layer / folded, by image', seconds(layer_by_layer),
             seconds(lambda: scheme.protect(some, secrets=many)))
        print(f'they differ by at most {apart:.1e}')

    for size, batch in (56, 32), (112, 8):
        model = nn.ModuleDict(dict(generator=let_pass(UNet(widths=SETTINGS['small'].widths)),
                                   recogniser=recogniser('small', 192, size), head=margin_head('ArcFace', 128, 100)))
        x, who = F.interpolate(faces, (size, size)).repeat(batch//8, 1, 1, 1)[:batch], torch.arange(batch)
        a, b = (seconds(lambda: f(model, x, who).backward(), 3) for f in (written_out, folded))
        line(f'a step of stage 1, {batch} faces of {size} pixels: written out / folded', a, b)

    print(f'\n{"for one face of 112 x 112":26} {"parameters":>12} {"multiply-adds":>15}')
    for name, c in {'g, released': generator_cost(released), 'g, small': generator_cost(small),
                    'IR-50': cost(backbone('ir50')), 'IR-18': cost(backbone('ir18')),
                    'small recogniser': cost(backbone('small'))}.items():
        print(f'{name:26} {c["parameters"]:12,} {c["macs"]:15,}')
    for name, k in {'X or X_p': 3, 'X_p, n_duplicate 2': 6, 'x or r': 192}.items():
        print(f'{name:26} {4*k*112**2:12,} bytes as float32 {k*112**2:10,} as uint8')

if __name__ == '__main__': main()
