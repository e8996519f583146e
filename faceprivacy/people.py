import io, math
from dataclasses import dataclass, fields
import numpy as np, torch, torch.nn.functional as F
from PIL import Image
from torch import Tensor

# name: (mean, spread, offsets of clusters A B C D in spreads, offset of presentation in spreads); cm, rad or shares
SHAPE = dict(
    head_width=(7.4, .40, (0, .4, 0, -.3), .4), head_height=(11.6, .5, (0, 0, 0, 0), .2),
    head_depth=(9.4, .4, (0, -.4, .2, 0), 0), roundness=(2.25, .16, (0, .3, -.2, 0), 0),
    taper=(.17, .07, (0, -.3, 0, .2), -.5), jaw_width=(.3, .3, (0, .3, 0, 0), .6),
    chin_length=(11.2, .55, (0, -.3, 0, 0), .4), chin_out=(.8, .35, (0, -.2, .1, 0), .4),
    chin_width=(2.6, .5, (0, 0, 0, 0), .5), cheekbone=(.55, .32, (0, .7, .1, 0), -.1),
    cheekbone_y=(-2.0, .45, (0, .2, 0, 0), 0), cheek_fill=(.15, .4, (0, .2, 0, 0), -.1),
    eye_x=(3.2, .22, (0, .3, .1, 0), 0), eye_y=(.0, .28, (0, 0, 0, 0), 0),
    eye_width=(1.5, .14, (0, 0, .1, .1), -.2), eye_height=(.60, .10, (0, -.6, 0, .2), -.3),
    eye_tilt=(.05, .07, (0, .8, 0, 0), -.1), eye_depth=(1.25, .25, (.3, -.8, 0, .2), .2),
    brow_ridge=(.40, .22, (.2, -.5, .1, .1), .8), nose_width=(1.45, .24, (-.6, .2, .9, .1), .3),
    nose_length=(4.0, .40, (.2, -.1, 0, .2), .2), nose_out=(2.0, .33, (.4, -.4, -.2, .4), .3),
    nose_bridge=(1.05, .28, (.5, -.8, -.4, .5), .2), nose_hump=(.05, .17, (.2, -.2, -.2, .4), .1),
    nose_tip=(.75, .18, (0, 0, .4, 0), 0), mouth_y=(-6.7, .38, (0, 0, 0, 0), -.1),
    mouth_width=(2.5, .28, (0, -.1, .4, .1), .1), lip_upper=(.42, .12, (-.4, 0, 1., .1), -.4),
    lip_lower=(.58, .14, (-.3, 0, 1., .1), -.4), lip_out=(.30, .10, (-.2, 0, .8, 0), -.2),
    ear=(1.3, .3, (0, 0, 0, 0), .2), asym_eye=(0, .1, (0, 0, 0, 0), 0), asym_nose=(0, .13, (0, 0, 0, 0), 0),
    asym_mouth=(0, .13, (0, 0, 0, 0), 0))
LOOK = dict(
    melanin=(.30, .11, (-1.3, -.4, 4.2, 1.5), 0), hue=(0, .5, (0, .5, 0, .3), 0), redness=(.5, .25, (.4, 0, -.5, 0), 0),
    hair_dark=(.75, .22, (-1.3, .9, 1.1, .8), 0), hair_red=(.2, .2, (.6, -.6, -.6, -.3), 0),
    hairline=(6.6, .7, (0, 0, -.2, -.3), .3), hair_length=(-1.0, 2.4, (0, 0, .5, -.2), 1.2),
    hair_thick=(1.1, .45, (0, 0, .3, .2), -.6), parting=(0, 1.6, (0, 0, 0, 0), 0),
    brow_y=(2.2, .24, (0, .1, 0, -.1), -.7), brow_thick=(.36, .09, (0, -.2, 0, .5), .6), brow_arch=(.26, .13, (0, -.2, 0, 0), -.6),
    brow_tilt=(0, .07, (0, 0, 0, 0), 0), brow_dark=(.7, .2, (-.5, .2, .4, .5), .2), iris=(.10, .14, (2.6, -.5, -.5, 0), 0),
    lip_colour=(.5, .25, (0, 0, -.3, 0), -.5), beard=(-.6, .55, (0, -.5, 0, .4), 1.), freckle=(-.3, .4, (.7, 0, -.6, 0), 0),
    shade=(.0, .3, (0, 0, 0, 0), 0))
S, L = {k: i for i, k in enumerate(SHAPE)}, {k: i for i, k in enumerate(LOOK)}
TEMPLATE = torch.tensor([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])

class Rows:
    def __len__(self): return len(getattr(self, fields(self)[0].name))
    def __getitem__(self, i): return type(self)(*(getattr(self, f.name)[i] for f in fields(self)))

@dataclass
class Person(Rows):
    shape: Tensor; look: Tensor; moles: Tensor; age: Tensor; group: Tensor

@dataclass
class Shot(Rows):
    pose: Tensor; expression: Tensor; light: Tensor; backdrop: Tensor; occluder: Tensor; camera: Tensor; ageing: Tensor

@dataclass
class Render:
    image: Tensor; landmarks5: Tensor; points3d: Tensor; mask: Tensor

def _table(table, n, cluster, side, g):
    mean, spread = (torch.tensor([v[i] for v in table.values()]) for i in (0, 1))
    off = torch.tensor([v[2] for v in table.values()]).T[cluster] + side[:, None]*torch.tensor([v[3] for v in table.values()])
    return mean + spread*(off + torch.randn(n, len(table), generator=g).clamp(-2.6, 2.6))

def sample_people(n, generator, group=None):
    g = generator
    group = torch.arange(n) % 8 if group is None else torch.as_tensor(group).expand(n).clone()
    cluster, side = group % 4, (group//4).float()*2 - 1
    moles = torch.cat([torch.rand(n, 6, 2, generator=g)*torch.tensor([11., 12.]) + torch.tensor([-5.5, -9.]),
                       torch.rand(n, 6, 1, generator=g)*.22 - .06], -1)
    return Person(_table(SHAPE, n, cluster, side, g), _table(LOOK, n, cluster, side, g), moles,
                  22 + 45*torch.rand(n, generator=g)**1.5, group)

def sample_shots(n, generator, variation='mild'):
    u = lambda *s: torch.rand(n, *s, generator=generator)*2 - 1
    strong = variation == 'strong'
    pose = u(3)*torch.tensor([45., 15., 8.] if strong else [15., 8., 5.])
    e = torch.rand(n, 8, generator=generator)
    expr = torch.stack([e[:, 0]**3*.8, e[:, 1]*1.2 - .3, e[:, 2]**6, e[:, 2]**6, e[:, 4]*.8 - .4, e[:, 5]*.8 - .4, e[:, 6]*.4 - .2], 1)
    light = torch.cat([u(2)*torch.tensor([.9, .5]), .75 + .25*torch.rand(n, 2, generator=generator), u(3)*.05], 1)
    occ = torch.zeros(n, dtype=torch.long)
    if strong: occ = (torch.rand(n, generator=generator)*10).long().sub(7).clamp(min=0)
    cam = torch.rand(n, 3, generator=generator)*(torch.tensor([1.2, .03, 60.]) if strong else torch.tensor([.4, .012, 20.]))
    return Shot(pose, expr, light, .25 + .5*torch.rand(n, 6, generator=generator), occ, cam,
                u()*12 if strong else u()*0)

def rotation(pose):
    y, p, r = (pose*math.pi/180).unbind(-1)
    c, s, o, z = torch.cos, torch.sin, torch.ones_like(y), torch.zeros_like(y)
    ry = torch.stack([c(y), z, s(y), z, o, z, -s(y), z, c(y)], -1).view(-1, 3, 3)
    rx = torch.stack([o, z, z, z, c(p), -s(p), z, s(p), c(p)], -1).view(-1, 3, 3)
    rz = torch.stack([c(r), -s(r), z, s(r), c(r), z, z, z, o], -1).view(-1, 3, 3)
    return rz @ rx @ ry

def bell(x, y, sx, sy): return torch.exp(-(x/sx)**2 - (y/sy)**2)
def step(x, w): return torch.sigmoid(x/w)

class P:
    "named columns of a batch, each (b, 1, 1)"
    def __init__(self, person, shot):
        self.t = {**{k: person.shape[:, i] for k, i in S.items()}, **{k: person.look[:, i] for k, i in L.items()}}
        for i, k in enumerate(('jaw', 'smile', 'blink_l', 'blink_r', 'brow', 'gaze_x', 'gaze_y')): self.t[k] = shot.expression[:, i]
        self.t['old'] = ((person.age + shot.ageing - 30)/40).clamp(0, 1.2)
    def __getattr__(self, k): return self.t[k][:, None, None]

def lips_line(p, X): return p.mouth_y + .10*p.smile*(X/p.mouth_width)**2*p.mouth_width + .05*p.asym_mouth*X - .25*p.jaw
def eye_coords(p, X, Y, side):
    x = side*X - p.eye_x*(1 + 0*X)
    y = Y - p.eye_y - side*p.asym_eye - p.eye_tilt*x
    return x, y

def surface(p, d):
    "radius (b, N, N) over unit directions (b, N, N, 3)"
    dx, dy, dz = d.unbind(-1)
    front = step(dz - .05, .12)
    R = torch.full_like(dx*p.head_width, 10.)
    for _ in range(5):
        y = R*dy
        low = F.softplus(-(y + 3.5), 1.2)
        a = p.head_width*(1 - p.taper*(low/7)**1.3*.75) + .25*p.jaw_width*bell(0*y, y + 7, 1, 2.4)
        h = torch.where(dy > 0, p.head_height, p.chin_length + .9*p.jaw)
        n = p.roundness
        R = ((dx.abs()/a)**n + (dy.abs()/h)**n + (dz.abs()/p.head_depth)**n + 1e-9)**(-1/n)
    X, Y = R*dx, R*dy
    B = 0*R
    add = lambda amount, m: B + amount*m*front
    B = add(.35, bell(X, Y - 5, 4, 2.5)); B = add(p.brow_ridge, bell(X.abs() - 2.6, Y - 1.7, 2.2, .7))
    for s in (-1, 1):
        x, y = eye_coords(p, X, Y, s)
        B = add(-p.eye_depth, bell(x + .3, y - .1, 1.9, 1.15)); B = add(.62, bell(x, y, 1.15, .95))
        open_ = p.eye_height*(1 - (p.blink_l if s > 0 else p.blink_r))
        B = add(.16, bell(x, y - open_*(1 - (x/p.eye_width)**2).clamp(min=0) - .14, 1.3, .16))
        B = add(p.cheekbone, bell(s*X - 4.6, Y - p.cheekbone_y, 1.9, 1.5))
        B = add(p.cheek_fill + .35*p.smile.clamp(min=0), bell(s*X - 3.6, Y + 4.2, 1.9, 1.9))
        B = add(-.12 - .25*p.old - .2*p.smile.clamp(min=0), bell(s*X - 2.3 - .32*(-Y - 4.2), Y + 5.2, .35, 1.5))
        B = add(-.18*p.old, bell(x, y + 1.25, 1.2, .3)); B = add(.2*p.old, bell(x, y + .9, 1.1, .3))
        B = add(p.nose_out*.34, bell(s*X - p.nose_width*.82, Y + p.nose_length - .1, .52, .58))
    nx = X - p.asym_nose*((-Y)/4).clamp(0, 1)
    along = ((-Y + .6)/(p.nose_length + .6)).clamp(0, 1.1)
    ridge = step(Y + p.nose_length + .35, .16)*step(1.6 - Y, .5)
    B = add(1, ridge*(p.nose_bridge*(1 - along) + p.nose_out*along**1.6)*torch.exp(-(nx/(.62 + .45*along))**2))
    B = add(p.nose_hump, bell(nx, Y + 1.7, .6, .8)); B = add(p.nose_tip*.5, bell(nx, Y + p.nose_length - .25, .75, .6))
    line = lips_line(p, X); w = p.mouth_width*(1 + .12*p.smile)
    inside = (1 - (X/w)**2).clamp(min=0)**.6
    B = add(p.lip_out, inside*bell(0*X, Y - line - .45*p.lip_upper, 1, p.lip_upper*.75))
    B = add(p.lip_out*1.05, inside*bell(0*X, Y - line + .5*p.lip_lower + .9*p.jaw, 1, p.lip_lower*.75))
    B = add(-.16 - .5*p.jaw, inside*bell(0*X, Y - line + .45*p.jaw, 1, .12 + .45*p.jaw)); B = add(-.22, bell(X, Y - line + 1.6, 1.9, .6))
    B = add(-.16, bell(X.abs() - w - .1, Y - line, .4, .45)); B = add(.5, bell(X, Y - line - .1, 3.2, 2.3))
    B = add(-.12, bell(X, Y - line - 1.2, .3, .7)); B = add(p.chin_out, bell(X, Y + 9.6 + .9*p.jaw, p.chin_width, 1.3))
    B = B + p.ear*step(.10 - (((dz + .02)/.9)**2 + ((Y + 1.5)/9)**2 + 1e-6).sqrt(), .03)*(1 - .45*bell(dz - .02, Y + 1.4, .05, 1.4))*step(X.abs() - 5, .3)
    for i in range(3): B = B - .05*p.old*torch.sin(9*Y + 2*torch.cos(X*.5))*bell(X, Y - 5.2, 4.5, 1.6)*front/2
    hair = hair_mask(p, X, Y, dz)
    B = B + p.hair_thick.clamp(.15)*hair*(1 + .25*dy)
    return R + B

def hair_mask(p, X, Y, dz):
    lineY = p.hairline - .042*(X - .35*p.parting)**2 - .2*torch.sin(X*1.3 + p.parting) - .12*torch.sin(X*4.1 + 2*p.parting)
    top = step(Y - lineY, .22)
    length = torch.where(p.hair_length > 0, .6 + 0*p.hair_length, -3 + 4.5*p.hair_length).clamp(min=-14)
    side = step(Y - length, .4)*step(.16 + .10*step(Y - 1, .6) - dz - .12*step(-1 - Y, .7), .04)
    return 1 - (1 - top)*(1 - side)

def chart(N):
    v = (torch.arange(N) + .5)/N*2 - 1
    y, x = torch.meshgrid(-v, v, indexing='ij')
    r2 = (x*x + y*y).clamp(max=1)
    z = 1 - 2*r2
    s = 2*(1 - r2).clamp(min=0).sqrt()
    return F.normalize(torch.stack([x*s, y*s, z], -1), dim=-1)

def lookup(maps, d):
    uv = d[..., :2]/(2*(1 + d[..., 2:]).clamp(min=1e-4)).sqrt()
    return F.grid_sample(maps, torch.stack([uv[..., 0], -uv[..., 1]], -1), align_corners=False, padding_mode='border')

def anchors(p):
    "canonical directions of the five landmarks' (X, Y)"
    X = torch.cat([-p.eye_x, p.eye_x, p.asym_nose, -p.mouth_width*(1 + .12*p.smile), p.mouth_width*(1 + .12*p.smile)], 2)[:, 0]
    Y = torch.cat([p.eye_y - p.asym_eye, p.eye_y + p.asym_eye, -p.nose_length + .25, p.mouth_y + .1*p.smile*p.mouth_width - .25*p.jaw, p.mouth_y + .1*p.smile*p.mouth_width - .25*p.jaw], 2)[:, 0]
    return X, Y

def points_on(radius, X, Y):
    z = torch.full_like(X, 8.5)
    for _ in range(8):
        d = F.normalize(torch.stack([X, Y, z], -1), dim=-1)
        r = lookup(radius[:, None], d[:, None])[:, 0, 0]
        z = (r*r - X*X - Y*Y).clamp(min=.5).sqrt()
    return torch.stack([X, Y, z], -1)

def similarity(src, dst):
    a, b = src - src.mean(1, keepdim=True), dst - dst.mean(1, keepdim=True)
    den = (a*a).sum((1, 2))
    c = (a*b).sum((1, 2))/den
    s = (a[..., 0]*b[..., 1] - a[..., 1]*b[..., 0]).sum(1)/den
    M = torch.stack([c, -s, s, c], -1).view(-1, 2, 2)
    return M, dst.mean(1) - (M @ src.mean(1)[..., None])[..., 0]

DIST = 75.
def project(P3, Rm):
    q = P3 @ Rm.mT
    return q[..., :2]*torch.tensor([1., -1.])*DIST/(DIST - q[..., 2:])

_tile = torch.rand(3, 1, 128, 128, generator=torch.Generator().manual_seed(5))*2 - 1
def noise(x, y, k=0):
    g = torch.stack([x, y], -1)
    g = (g/64 + 1) % 2 - 1
    return F.grid_sample(_tile[k:k + 1].expand(len(x), 1, 128, 128), g, align_corners=False, padding_mode='reflection')[:, 0]

def render(person, shot, size=112, framing='aligned', chunk=16, N=None):
    parts = [_render(person[i:i + chunk], shot[i:i + chunk], size, framing, N or (112 if size <= 128 else 224)) for i in range(0, len(person), chunk)]
    return Render(*(torch.cat([getattr(q, f.name) for q in parts]) for f in fields(Render)))

@torch.no_grad()
def _render(person, shot, size, framing, N):
    b, p = len(person), P(person, shot)
    d = chart(N)
    radius = surface(p, d[None].expand(b, N, N, 3))
    Rm = rotation(shot.pose)
    X5, Y5 = anchors(p)
    P5 = points_on(radius, X5, Y5)
    flat = project(P5, Rm)
    if framing == 'aligned': M, t = similarity(flat, (TEMPLATE*size/112)[None].expand(b, 5, 2))
    else:
        s = size/36.
        M = torch.eye(2)[None].expand(b, 2, 2)*s
        t = torch.tensor([size/2, size*.52])[None].expand(b, 2)
    marks = (M @ flat.mT).mT + t[:, None]
    v = torch.arange(size) + .5
    yy, xx = torch.meshgrid(v, v, indexing='ij')
    pix = torch.stack([xx, yy], -1).view(1, -1, 2)
    plane = ((pix - t[:, None]) @ torch.linalg.inv(M).mT).view(b, size, size, 2)
    # rays in head coordinates
    eye = torch.tensor([0., 0., DIST]) @ Rm
    ray = F.normalize(torch.cat([plane*torch.tensor([1., -1.]), torch.full((b, size, size, 1), -DIST)], -1), dim=-1)
    ray = (ray.view(b, -1, 3) @ Rm).view(b, size, size, 3)
    eye = eye[:, None, None]
    tt = torch.full((b, size, size, 1), DIST - 14.)
    for i in range(18):
        pos = eye + tt*ray
        r = pos.norm(dim=-1, keepdim=True)
        f = r - lookup(radius[:, None], pos/r).permute(0, 2, 3, 1)
        tt = tt + .72*f.clamp(-1, 4)
    pos = eye + tt*ray
    alpha = step(.22 - f, .05)[..., 0]*(tt[..., 0] < DIST + 9)
    dirs = F.normalize(pos, dim=-1)
    Pm = (radius[..., None]*d).permute(0, 3, 1, 2)
    gx = F.pad(Pm[..., 2:] - Pm[..., :-2], (1, 1, 0, 0), mode='replicate'); gy = F.pad(Pm[:, :, 2:] - Pm[:, :, :-2], (0, 0, 1, 1), mode='replicate')
    nm = F.normalize(torch.linalg.cross(gy, gx, dim=1), dim=1)
    k = max(3, N//14)|1
    soft = F.avg_pool2d(F.pad(radius[:, None], (k//2,)*4, mode='replicate'), k, 1)
    ao = (1 + (radius[:, None] - soft)*.55).clamp(.45, 1.12)
    got = lookup(torch.cat([nm, ao], 1), dirs)
    n = F.normalize(got[:, :3], dim=1).permute(0, 2, 3, 1); ao = got[:, 3]
    albedo, gloss = paint(p, person, shot, pos, dirs[..., 2])
    return shade(p, person, shot, Rm, n, ao, albedo, gloss, alpha, ray, plane, marks, P5, size)

RAMP = torch.tensor([[.86, .64, .54], [.78, .55, .43], [.62, .40, .28], [.42, .25, .165], [.22, .125, .085], [.13, .075, .05]])
def skin_tone(m):
    x = m.clamp(0, 1)*5; i = x.long().clamp(max=4); f = (x - i)[:, None]
    return RAMP[i]*(1 - f) + RAMP[i + 1]*f

def mix(a, b, m): return a + (b - a)*m[..., None]

def paint(p, person, shot, pos, dz):
    X, Y, _ = pos.unbind(-1)
    off = person.moles[:, :1, :1]*7
    front = step(dz - .1, .08)
    n1, n2, n3 = noise(X*9 + off, Y*9 + off), noise(X*2.5 + off, Y*2.5, 1), noise(X*24 + off, Y*24, 2)
    skin = skin_tone(person.look[:, L['melanin']])[:, None, None]*(1 + .035*n1 + .04*n2 + .03*n3)[..., None]
    skin = skin*(1 + .05*p.hue[..., None]*torch.tensor([.2, .1, -1.]))
    red = p.redness.clamp(0)*(.5*(bell(X.abs() - 4.2, Y + 3, 2, 1.6)) + .5*bell(X, Y + p.nose_length, 1.4, .9))
    skin = skin*(1 - red[..., None]*torch.tensor([.0, .20, .17]))
    fr = (noise(X*6 + 3*off, Y*6, 2) > .55).float()*bell(X, Y + 2.2, 5, 1.8)*p.freckle.clamp(0)
    skin = skin*(1 - .3*fr[..., None])
    for i in range(6):
        m = person.moles[:, i]; r = m[:, 2][:, None, None]
        dd = ((X - m[:, 0][:, None, None])**2 + (Y - m[:, 1][:, None, None])**2 + 1e-6).sqrt()
        skin = mix(skin, skin*.35, step(r - dd, .05)*(r > .03))
    dark = p.hair_dark.clamp(.05, 1)[..., None]; rd = p.hair_red.clamp(0, 1)[..., None]
    hair_c = (1 - dark)*torch.tensor([.52, .36, .20]) + dark*torch.tensor([.025, .02, .018]) + .10*rd*torch.tensor([1., .25, .1])*(1.2 - dark)
    grey = (p.old*1.2 - .35).clamp(0, 1)[..., None]
    hair_c = hair_c*(1 - .8*grey) + .8*grey*.42
    # beard
    zone = front*step(-Y - 5.2 - .35*(X.abs() - 4).clamp(0), .35)*(1 - .9*bell(X, Y - lips_line(p, X), 2.2, .75))
    zone = torch.maximum(zone, front*bell(X, Y - p.mouth_y - 1.15, 2.3, .42))*(person.group//4 == 1)[:, None, None]
    skin = mix(skin, .6*hair_c + .2*skin, (zone*p.beard.clamp(0, .95)*(.8 + .3*n3)).clamp(0, 1))
    # lips
    line = lips_line(p, X); w = p.mouth_width*(1 + .12*p.smile)
    arch = (1 - (X/w)**2).clamp(min=0)
    up = p.lip_upper*1.25*arch**.8*(1 - .22*torch.exp(-(X/.28)**2)); lo = p.lip_lower*1.2*arch**.8
    inlip = step(torch.minimum(line + up - Y, Y - (line - lo - .9*p.jaw)), .07)*step(arch - .03, .02)*front
    lc = skin*torch.tensor([.98, .76, .75])*(1 - .1*p.lip_colour[..., None]) + p.lip_colour.clamp(0, 1)[..., None]*.10*torch.tensor([1., .1, .2])
    skin = mix(skin, lc, .85*inlip)
    gap = .05 + .45*p.jaw
    mouth = step(gap*arch**.5 - (Y - line + .45*p.jaw).abs(), .05)*step(arch, .02)*front
    teeth = step(.14 - (Y - line + .1).abs(), .06)*(p.jaw > .15)
    skin = mix(skin, mix(torch.tensor([.09, .03, .03]) + 0*skin, torch.tensor([.72, .69, .62]) + 0*skin, teeth), mouth*(.55 + .45*(p.jaw > .1)))
    # brows
    gloss = .22 + .25*inlip
    for s in (-1, 1):
        x, y = eye_coords(p, X, Y, s)
        q = (x + .1)/2.1
        curve = p.brow_y + .5*p.brow + p.brow_arch*(1 - (q - .35)**2*1.6) + p.brow_tilt*x
        th = p.brow_thick.clamp(.1)*(1 - .55*((q + 1)/2).clamp(0, 1)) + .03
        brow = step(th - (y - curve).abs(), .07)*step(1 - q.abs(), .06)*front*(.82 + .25*n3 + .1*n1)
        skin = mix(skin, .75*hair_c + .1*skin, (brow*p.brow_dark.clamp(.3, 1)).clamp(0, 1))
        open_ = (p.eye_height*(1 - (p.blink_l if s > 0 else p.blink_r))*(1 + .1*p.brow)).clamp(min=.03)
        ex = x/p.eye_width
        upper, lower = open_*(1 - ex**2*(1 + .15*ex)).clamp(min=-.5), -.72*open_*(1 - ex**2).clamp(min=-.5)
        eyem = step(torch.minimum(upper - y, y - lower), .05)*step(1 - ex.abs(), .03)*front
        gx, gy = .9*p.gaze_x*s, .5*p.gaze_y
        ri = ((x - gx)**2 + (y - gy)**2 + 1e-6).sqrt()
        iris_c = (1 - p.iris[..., None].clamp(0, 1))*torch.tensor([.10, .055, .03]) + p.iris[..., None].clamp(0, 1)*torch.tensor([.16, .28, .36])
        ball = torch.tensor([.74, .70, .67])*(1 - .35*ex.abs()[..., None]**2) + 0*skin
        ball = mix(ball, iris_c*(.8 + .7*ri[..., None]), step(.60 - ri, .05)); ball = mix(ball, .015 + 0*ball, step(.26 - ri, .04))
        ball = ball*(1 - .45*step(y - upper + .22, .1))[..., None]
        ball = mix(ball, .95 + 0*ball, .9*step(.13 - ((x - gx - .2*s)**2 + (y - gy - .22)**2 + 1e-6).sqrt(), .03))
        lash = step(.07 + .03*ex.abs() - (y - upper).abs(), .035)*step(1.08 - ex.abs(), .04)*front
        skin = mix(mix(skin, ball, eyem), .04 + 0*skin, .85*lash); gloss = gloss*(1 - eyem) + .1*eyem
        crease = bell(x, y - upper - .32, p.eye_width, .09)*front
        skin = skin*(1 - .28*crease - .10*bell(x, y, 1.9, 1.0)*front)[..., None]
        nost = bell(s*X - .5*p.nose_width, Y + p.nose_length + .42, .34, .16)*front
        skin = skin*(1 - .75*nost[..., None])
    hair = hair_mask(p, X, Y, dz)
    strands = 1 + .25*noise(X*16 + off, Y*2.2) + .2*noise(X*30, Y*3, 1)
    bald = ((p.hair_thick < .45) & (person.group//4 == 1)[:, None, None]).float()
    skin = mix(skin, hair_c*strands[..., None], (hair*(1 - .75*bald)).clamp(0, 1)); gloss = gloss*(1 - .6*hair)
    o = shot.occluder[:, None, None]
    lens = torch.zeros_like(X)
    for s in (-1, 1): lens = torch.maximum(lens, step(1.25 - (((s*X - 3.2)/2.4)**4 + ((Y + .25)/1.9)**4 + 1e-6)**.25*1.2, .03))
    lens = torch.maximum(lens, step(.22 - (Y - .7).abs(), .05)*step(7 - X.abs(), .1))*front*(o == 1)
    skin = mix(skin, .03 + .03*(1 + torch.sin(Y*1.2 + X*.6))[..., None] + 0*skin, lens)
    cover = step(-Y - 2.3 - .06*X**2 + .0, .08)*step(dz + .05, .05)*(o == 2)
    skin = mix(skin, torch.tensor([.55, .66, .72])*(1 + .05*torch.sin(Y*5))[..., None], cover)
    return skin.clamp(0, 1), gloss

def shade(p, person, shot, Rm, n, ao, albedo, gloss, alpha, ray, plane, marks, P5, size):
    b = len(person)
    az, el, power, amb = (shot.light[:, i] for i in range(4))
    l = F.normalize(torch.stack([az.sin()*el.cos(), .35 + el.sin(), .9*az.cos()], -1), dim=-1)
    l = torch.einsum('bi,bij->bj', l, Rm)[:, None, None]
    up = (torch.tensor([0., 1., 0.]) @ Rm)[:, None, None]
    nl, ny = (n*l).sum(-1), (n*up).sum(-1)
    wrap = torch.tensor([.48, .36, .32])
    diff = ((nl[..., None] + wrap)/(1 + wrap)).clamp(min=0)**1.25
    tint = 1 + shot.light[:, 4:7][:, None, None]
    h = F.normalize(l - ray, dim=-1)
    spec = gloss*((n*h).sum(-1).clamp(min=0)**22*.22 + (n*h).sum(-1).clamp(min=0)**6*.06)
    A, W = amb[:, None, None, None], power[:, None, None, None]
    c = albedo*ao[..., None]*(W*.95*diff + A*(.42 + .14*ny[..., None]))*tint + spec[..., None]*W
    x, y = plane.unbind(-1)
    wall = shot.backdrop.view(-1, 2, 3)
    wall = .35*wall + .65*wall.mean(-1, keepdim=True)
    back = mix(wall[:, None, None, 0] + 0*c, wall[:, None, None, 1] + 0*c, step(y + 3*noise(x*.3, y*.3, 1), 8))*.6
    tone = skin_tone(person.look[:, L['melanin']])[:, None, None]
    neckc = tone*(.30 + .25*(1 - (x/6)**2).clamp(0))[..., None]
    nx = x - 4*torch.sin(shot.pose[:, :1, None]*math.pi/180)
    back = mix(back, neckc, step(5.1 - nx.abs(), .2)*step(y - 6, .5))
    cloth = shot.backdrop[:, None, None, [4, 0, 2]]*.5
    back = mix(back, cloth*(1 + .1*noise(x*3, y*3))[..., None], step(y - 15.5 + .0 - .0*x - 3.2*torch.exp(-(x/7)**2)*-1, .25))
    c = mix(back, c, alpha)
    img = c.clamp(0, 4)
    img = (img/(1 + .18*img)*1.12).clamp(1e-5, 1)**(1/2.2)
    img = img.permute(0, 3, 1, 2)
    return Render(img*2 - 1 if size == 112 else img, marks, P5, alpha)

def photograph(images, shot, generator):
    return images
