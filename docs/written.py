"""Pages of the site that are no notebooks: groups, API, cards, changelog, citation."""
import hashlib
import html
import re
from pathlib import Path

import yaml
from safetensors import safe_open

from faceprivacy.core import path, read_json
from notebooks import BLOB, Names


def toctree(names) -> str: return '\n'.join(['```{toctree}', ':hidden:', *names, '```'])


def citations() -> dict:
    "CITATION.cff"
    return yaml.safe_load(path('CITATION.cff').read_text(encoding='utf-8'))


def cited(title: str) -> str:
    "A line of citation for one of the papers"
    paper = next((p for p in citations()['references'] if p['title'] == title), None)
    if paper is None: return ''
    authors = ', '.join(a.get('family-names') or a.get('name') for a in paper['authors'])
    where = (paper.get('conference') or {}).get('name') or paper.get('journal', '')
    return f'{authors}: *{paper["title"]}*. {where or paper["year"]}, [{paper["url"].removeprefix("https://")}]({paper["url"]}).'


def group_page(group, written) -> str:
    "What a group of notebooks asks, its paper, and its pages"
    cards = [f'<a class="page" href="{b.name}.html"><span>{b.name.split("_")[0] if b.name[0].isdigit() else "tutorial"}</span>'
             f'<strong>{html.escape(b.title)}</strong><em>{html.escape(b.summary)}</em></a>' for b in group['books']
             if b.name != '90_results']
    cards += [f'<a class="page" href="{n}.html"><span>page</span><strong>{t}</strong><em></em></a>' for n, t in written]
    names = [n for n, _ in written] + [b.name for b in group['books'] if b.name != '90_results']
    paper = cited(group.get('paper') or '')
    return '\n\n'.join(filter(None, [f'# {group["title"]}', f'{{.lead}}\n{group["question"]}',
                                     paper and f'{{.paper-cited}}\nThe paper: {paper}',
                                     f'<div class="pages">{"".join(cards)}</div>', toctree(names)])) + '\n'


def api(groups) -> dict:
    "A page a module, from its docstrings, and their index"
    pages, lines = {}, []
    for group in groups:
        for b in (b for b in group.get('books', []) if b.module):
            pages[f'api/{b.module}'] = (
                f'# {b.module}\n\n{{.lead}}\n{b.summary}\n\nExported from the notebook [{b.title}](../{b.name}.ipynb), where '
                f'each function stands beside its explanation, its examples and its tests.\n\n```{{eval-rst}}\n'
                f'.. automodule:: faceprivacy.{b.module}\n   :members:\n   :undoc-members:\n```\n')
            lines.append(f'| [`{b.module}`]({b.module}.md) | {b.summary} | [{b.name}](../{b.name}.ipynb) |')
    names = sorted(n.split('/')[1] for n in pages)
    table = '\n'.join(['| module | what it is for | notebook |', '|---|---|---|', *lines])
    pages['api/index'] = f'# API\n\n{{.lead}}\nEvery exported function, from its docstring.\n\n{table}\n\n{toctree(names)}\n'
    return pages


def overview(names: Names) -> str:
    "The README, as it stands"
    text = path('README.md').read_text(encoding='utf-8')
    text = re.sub(r'^# .*$', '# The project in ten minutes', text, count=1, flags=re.M)
    text = re.sub(r'\[!\[[^\]]*\]\([^)]*\)\]\([^)]*\)\s*', '', text)  # badges are for where they are looked for
    text = re.sub(r'!\[([^\]]*)\]\(docs/([^)]+)\)', r'<img class="wide" src="\2" alt="\1">', text)
    text = re.sub(r'(src|srcset)="docs/', r'\1="', text)
    text = re.sub(r'\]\((?!https?:|#|mailto:)([^)]+?)\)', root_link(names), text)
    return names.link(text, None)


def root_link(names):
    "Links of files at the repository's root, as seen from the site"
    def link(m):
        stem = Path(m[1]).stem
        if m[1].endswith('.ipynb') and stem in names.pages: return f']({stem}.ipynb)'
        if m[1] == 'CHANGELOG.md': return '](changelog.md)'
        if m[1].startswith('docs/') and m[1].endswith('.md'): return f']({m[1][5:]})'
        return f']({BLOB}{m[1]})'
    return link


def digest(file: Path) -> str: return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def weights() -> list[dict]:
    "What is known of every network file that ships: its numbers, its card"
    found = []
    for file in sorted(path('data/networks').rglob('*.safetensors')):
        with safe_open(file, 'pt') as f:
            numbers = sum(int(_count(f.get_slice(k).get_shape())) for k in f.keys())
            card = f.metadata() or {}
        found.append(dict(file=file, numbers=numbers, card=card))
    return found


def _count(shape):
    n = 1
    for k in shape: n *= k
    return n


def weight_table() -> str:
    rows = ['| file | numbers | bytes | sha256, its beginning |', '|---|---|---|---|']
    for w in weights():
        name = w['file'].relative_to(path('data/networks')).as_posix()
        rows.append(f'| `{name}` | {w["numbers"]:,} | {w["file"].stat().st_size:,} | `{digest(w["file"])}` |')
    return '\n'.join(rows)


def written_cards() -> str:
    "Cards that lie in the weights or beside them, as they are, less their logs"
    cards = {w['file']: w['card'] for w in weights()}
    for file in sorted(path('data/networks').rglob('card.json')):
        card = read_json(file)
        cards[file.parent] = {k: v for k, v in card.items() if not isinstance(v, (dict, list))} | card.get('parameters', {})
    parts = []
    for file, card in cards.items():
        if not card: continue
        name = file.relative_to(path('data/networks')).as_posix()
        flat = '\n'.join(f'| {k} | {html.escape(str(v))[:400]} |' for k, v in sorted(card.items()))
        parts.append(f'### The card of `{name}`\n\n| | |\n|---|---|\n{flat}')
    for file in sorted(path('data/networks').rglob('*.md')):
        parts.append(re.sub(r'^#', '###', file.read_text(encoding='utf-8'), flags=re.M))
    return '\n\n'.join(parts)


def percent(m) -> str: return f'{100*m["value"]:.1f} % ({100*m["low"]:.1f} to {100*m["high"]:.1f})'


def numbers_of_networks() -> str:
    "How well the networks do, from the stages that measure them"
    rows = ['| network | measured | value | by |', '|---|---|---|---|']
    plain = path('results/default/10_slerp/metrics.json')
    if plain.exists():
        m = read_json(plain)['methods']['plain']
        for key, name in (('accuracy', '10-fold accuracy'), ('tmr_at_fmr_0.01', 'TMR at FMR 1 %')):
            rows.append(f'| `small` | {name}, people never seen | {percent(m[key])} | [10_slerp](10_slerp.ipynb) |')
    inverted = path('results/default/30_inversion/metrics.json')
    if inverted.exists():
        m = read_json(inverted)['attacks']
        for name in (n for n in m if 'independent_type2_fmr_0.01' in m[n]):
            rows.append(f'| attack: {name} | accepted by the judge at FMR 1 % | {percent(m[name]["independent_type2_fmr_0.01"])} '
                        '| [30_inversion](30_inversion.ipynb) |')
    moving = path('results/default/43d_portrait_metrics/metrics.json')
    if moving.exists():
        for name, m in read_json(moving)['bars'].items():
            rows.append(f'| `liveportrait` | {name} | {m["found"]:.3f} | [43d_portrait_metrics](43d_portrait_metrics.ipynb) |')
    return '\n'.join(rows)


def data_facts() -> str:
    "Counts of the embedded people"
    from faceprivacy.datasets import open_faces
    faces = open_faces(path('data/people'))
    files = sorted(f for f in path('data').rglob('*') if f.is_file())
    size = sum(f.stat().st_size for f in files)
    made = read_json(path('data/people/source.json'))
    return (f'| | |\n|---|---|\n| embedded faces | {len(faces.train)} to train on, {len(faces.test)} to test on; '
            f'{len(faces.test.pairs)} pairs |\n| drawn with | {html.escape(str({k: v for k, v in made.items() if k != "mark"}))} |\n'
            f'| all embedded data | {len(files)} files, {size/1e6:.1f} MB |')


def bibtex() -> str:
    "BibTeX of the companion and of the four papers"
    cff = citations()
    def entry(kind, key, **fields):
        lines = ',\n'.join(f'  {k:<9} = {{{v}}}' for k, v in fields.items() if v)
        return f'@{kind}{{{key},\n{lines}\n}}'
    def names(authors): return ' and '.join(', '.join(filter(None, (a.get('family-names'), a.get('given-names')))) or f'{{{a["name"]}}}' for a in authors)
    entries = [entry('software', 'faceprivacy', title=cff['title'], author=names(cff['authors']), version=cff['version'], year=2026)]
    for p in cff['references']:
        where = (p.get('conference') or {}).get('name')
        key = re.sub(r'\W', '', p['title'].split(':')[0].split()[0]).lower() + str(p['year'])
        entries.append(entry('inproceedings' if where else 'article', key, title=p['title'], author=names(p['authors']),
                             booktitle=where, year=p['year'], doi=p.get('doi'), url=p['url']))
    return '```bibtex\n' + '\n\n'.join(entries) + '\n```'


FILL = dict(weight_table=weight_table, written_cards=written_cards, numbers_of_networks=numbers_of_networks,
            data_facts=data_facts, bibtex=bibtex, papers=lambda: '\n'.join(f'- {cited(p["title"])}' for p in citations()['references']))


def filled(text: str) -> str:
    "`{{name}}` replaced by what FILL makes"
    return re.sub(r'\{\{(\w+)\}\}', lambda m: FILL[m[1]](), text)


def pages(groups, names: Names, extra: Path) -> dict:
    "Markdown of all pages that are no notebooks, by name"
    hand = {f.stem: filled(f.read_text(encoding='utf-8')) for f in sorted(path('docs/text').glob('*.md'))}
    if (walk := path('docs/walk.md')).exists(): hand['walk'] = walk.read_text(encoding='utf-8')
    hand = {k: re.sub(r'\]\((?!https?:|#|mailto:)([^)]+?)\)', root_link(names) if k == 'walk' else lambda m: m[0], v)
            for k, v in hand.items()}
    hand = {k: names.link(v, None) for k, v in hand.items()}
    changes = re.sub(r'^# .*$', '# Changelog', path('CHANGELOG.md').read_text(encoding='utf-8'), count=1, flags=re.M)
    hand |= dict(overview=overview(names), changelog=names.link(changes, None))
    made = dict(hand)
    for group in groups:
        mine = [n for n in group.get('order', []) if n in hand]
        titles = [(n, re.search(r'^# (.+)$', hand[n], re.M)[1]) for n in mine]
        made[group['page']] = group_page(group, titles)
    return made | api(groups)
