"""The front page: the question, the picture that answers it, what was measured, where to read on."""
import html
import re
from pathlib import Path

import torch

from faceprivacy.core import load_tensors, path, resize, scrub, to_pixels
from faceprivacy.datasets import open_faces
from faceprivacy.inversion import load_decoder
from faceprivacy.recognition import backbone, embed, load_weights
from faceprivacy.slerp import Slerp, derive_keys
from notebooks import BLOB
from pictures import outside

SECRET = b'fixed, for a picture that repeats; real ones come from secrets'
TURNS = None, .2, .4, .6, .8, .9  # None: the plain template
SHOWN = 6
DATA = dict(default='drawn people', lfw='photographs (LFW)')


def strip(x) -> torch.Tensor:
    "Faces (n, 3, h, w) in a row, a white line between them"
    x = torch.nn.functional.pad(resize(x, 112), (3, 3, 0, 0), value=1.)
    return to_pixels(torch.cat(list(x), 2)[:, :, 3:-3]).permute(1, 2, 0).numpy()


def thief(folder: Path) -> str:
    "People, what a thief draws from their stored templates, and a slider that protects the templates"
    weights = path('data/networks/inversion')
    stored, held = load_tensors(path('data/people/templates.safetensors')), load_tensors(weights/'victims.safetensors')
    people = stored['person'].unique()[:SHOWN].tolist()
    enrolled, others = ([int((stored['person'] == p).nonzero()[n]) for p in people] for n in (0, 1))
    faces, z = open_faces(path('data/people')).test, stored['z'][enrolled]
    decoder = load_decoder(weights/'decoder.safetensors')
    judge = load_weights(backbone('small'), weights/'judge.safetensors').eval()
    photo, bar = embed(judge, faces.images(others)), held['independent.fmr_0.01']
    frames, labels = [], []
    for turn in TURNS:
        x = z if turn is None else protected(z, turn, people)
        with torch.no_grad(): drawn = decoder(x).clamp(-1, 1)
        opened = int(((embed(judge, resize(drawn, 112))*photo).sum(1) >= bar).sum())
        frames.append(strip(drawn))
        how = 'plain template' if turn is None else f'half dropped, the rest turned {turn:.0%} towards a key'
        labels.append(f'{how}: {opened} of {SHOWN} faces open the door')
    drawn = scrub(frames, labels, title='what the thief draws').data
    return f'''<div class="thief">
<figure class="people">{outside(scrub([strip(faces.images(enrolled))], ['people who do not exist'], title='photographs of six').data, '', folder)}</figure>
{outside(drawn, '', folder)}
<p>Above, six people who do not exist; below, what a small network draws from what is stored of each. Move the slider:
the templates are protected as SlerpFace does, more and more. A door opens if a recogniser that the thief never saw takes
the drawing for another photo of the person. This thief knows nothing of the protection;
<a href="31_adaptive_inversion.html">thieves who do</a> get further.</p></div>'''


def protected(z, turn: float, people):
    "What SlerpFace stores of templates, taken for templates by a thief who knows no better"
    scheme = Slerp.hardened(dim=z.shape[1], alpha=turn)
    record = scheme.protect(z, derive_keys(SECRET, people, scheme.groups, scheme.group_size))
    return torch.nn.functional.normalize(record.rows.flatten(1).float() @ scheme.basis.float(), dim=1)


def bar(measure, hue: str) -> str:
    "A percentage with its interval, drawn behind its number"
    if not measure or measure['value'] is None: return '<td class="none">not measured</td>'
    value, low, high = (100*measure[k] for k in ('value', 'low', 'high'))
    return (f'<td class="bar" title="95 % interval {low:.1f} to {high:.1f} %"><span class="track"><i style="width:{value:.1f}%;'
            f'background:{hue}"></i><b style="left:{low:.1f}%;width:{max(high - low, .4):.1f}%"></b></span>'
            f'<span class="value">{value:.0f} %</span></td>')


def measured() -> str:
    "Every scheme: whom it still recognises, whom the best attack gets"
    from faceprivacy.results import overview
    found = {p: {(x['kind'], x['name']): x for x in overview(p)} for p in DATA}
    rows = list(dict.fromkeys(k for points in found.values() for k in points))
    if not rows: return '<p>No results yet: <code>make repro</code> makes them.</p>'
    lines, kind = [], None
    for key in rows:
        if key[0] != kind:
            kind = key[0]
            book = dict(templates='13_template_audit', images='22_image_audit')[kind]
            title = dict(templates='Templates: one record stolen', images='Images: one seen')[kind]
            made = f'made by <a href="{book}.html">{book}</a>' + (
                ' and <a href="31_adaptive_inversion.html">31_adaptive_inversion</a>' if kind == 'templates' else '')
            lines.append(f'<tr class="kind"><th scope="rowgroup" colspan="5">{title} <span>{made}</span></th></tr>')
        point = next(p[key] for p in found.values() if key in p)
        cells = ''.join(bar(found[p].get(key, {}).get(what), hue) for p in DATA
                        for what, hue in (('recognition', 'var(--fp-kept)'), ('attack', 'var(--fp-lost)')))
        lines.append(f'<tr><th scope="row">{html.escape(point["label"])}</th>{cells}</tr>')
    heads = ''.join(f'<th colspan="2" scope="colgroup">{name}</th>' for name in DATA.values())
    subs = '<th scope="col">recognised</th><th scope="col">best attack</th>'*len(DATA)
    return (f'<div class="scrolls" tabindex="0"><table class="measured"><thead><tr><td></td>{heads}</tr><tr><td></td>{subs}</tr>'
            f'</thead><tbody>{"".join(lines)}</tbody></table></div>')


def sources() -> str:
    "Where each number of the table lies, on this site"
    links = [f'<a href="results/{p}/{n}/metrics.json">{n.split("_")[0]}, {DATA[p]}</a>' for p in DATA
             for n in ('13_template_audit', '22_image_audit', '31_adaptive_inversion')
             if path('results', p, n, 'metrics.json').exists()]
    return '<p class="made-line">Numbers: ' + ' · '.join(links) + '</p>'


def cards(groups) -> str:
    "A card a group, in reading order"
    made = [f'<a class="part" href="{g["page"]}.html"><span>{g["short"]}</span><strong>{g["question"]}</strong>'
            f'<em>{len(g["books"])} notebook{"s"*(len(g["books"]) > 1)}</em></a>' for g in groups if g['books'] and g['page'] != 'use']
    return f'<div class="parts">{"".join(made)}</div>'


def linked(text: str, books: dict) -> str:
    "Links to notebooks that are no page here lead to their source"
    def there(m): return m[0] if m[1] in books else f'href="{BLOB}nbs/{m[1]}.ipynb"'
    return re.sub(r'href="(\d\w+)\.html"', there, text)


def front_page(groups, books: dict, folder: Path) -> str:
    "Markdown of index.md"
    order = '\n'.join(('Results <90_results>\n' if g['page'] == 'use' and '90_results' in books else '')
                      + f'{g["short"]} <{g["page"]}>' for g in groups)
    results = '90_results.html' if '90_results' in books else 'overview.html'
    body = f'''# Is a stored template still a face?

<div class="hero"><div class="words">
<p class="say">A face recogniser keeps a <em>template</em> of everyone it knows, a few hundred numbers. People are told
that it is not a picture. Four papers say otherwise, or do something about it. Here they are taken apart, rebuilt,
attacked and measured, in notebooks that you can read, move and rerun.</p>
<p class="go"><a class="first" href="faces.html">Read from the start</a> <a href="{results}">See the results</a>
<a href="overview.html">The project in ten minutes</a></p>
</div>
{thief(folder)}
</div>

## What still recognises, and what leaks

{measured()}

<p><em>Recognised</em>: of people's new photos, how many are matched at a threshold that lets one stranger in a hundred
pass. <em>Best attack</em>: how often the best of all our attackers, keys stolen, is taken for another photo of the
person where one stranger in a thousand is. Lines are 95 % intervals, from drawing people again. A good scheme is long
in the first column and short in the second. Image schemes are learned, and here on a small budget: read their rows
against each other and against <em>the face itself</em>. <a href="{results}">The results page</a> has the figure, the papers'
numbers, and what turned out otherwise.</p>
{sources()}

## Read in order

{cards(groups)}

## Run it

```sh
make repro                                # everything, on people who do not exist
make repro PROFILE=lfw DATA=folder        # the same on LFW, with real networks
```

<p>The first needs Python 3.11, make and git, two cores, no GPU, no face of anybody. <code>make lab</code> opens the
notebooks with trained networks in place; <a href="use.html">the command line and the tutorials</a> take your own
templates, scheme, data or recogniser.</p>

```{{toctree}}
:hidden:
{order}
api/index
```
'''
    return linked(body, books)
