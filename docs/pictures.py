"""Pictures of the site: small files instead of base64, each with a text for those who do not see it."""
import ast
import base64
import hashlib
import html
import io
import re
from pathlib import Path

from PIL import Image

from faceprivacy.core import atomic, path

LOSSLESS = 24_000  # bytes; larger pictures are kept a little less exactly
INLINE = re.compile(r'src="data:(image|video)/([\w+]+);base64,([^"]+)"')


def keep(data: bytes, folder: Path, kind: str = 'png') -> tuple[str, int, int]:
    "Write a picture as the smaller of its own bytes and WebP; returns name, width, height"
    name = hashlib.sha256(data).hexdigest()[:16]
    still = kind in ('png', 'jpeg', 'gif') and not getattr(picture := Image.open(io.BytesIO(data)), 'is_animated', False)
    size = picture.size if still else (0, 0)
    folder.mkdir(parents=True, exist_ok=True)
    made = path('_docs/pictures', f'{name}-{LOSSLESS}.webp')  # encoding is slow, so it is done once
    if still and not made.exists():
        tried = [webp(picture, lossless=True, quality=60, method=4)]
        if len(tried[0]) > LOSSLESS: tried.append(webp(picture, quality=84, method=4))
        with atomic(made) as temporary: temporary.write_bytes(min(tried, key=len))
    if still and made.stat().st_size < len(data): data, kind = made.read_bytes(), 'webp'
    (folder/f'{name}.{kind}').write_bytes(data)
    return f'{name}.{kind}', *size


def webp(picture, **how) -> bytes:
    "Bytes of a picture as WebP"
    buffer = io.BytesIO()
    picture.convert('RGBA' if 'A' in picture.mode or 'transparency' in picture.info else 'RGB').save(buffer, 'WEBP', **how)
    return buffer.getvalue()


def figure(data: bytes, alt: str, made: str, folder: Path) -> str:
    "A picture with its text and, below it, what made it"
    name, w, h = keep(data, folder)
    return (f'<figure class="made"><img src="{folder.name}/{name}" alt="{html.escape(alt)}" width="{w}" height="{h}" '
            f'loading="lazy" decoding="async"><figcaption>{made}</figcaption></figure>')


def outside(text: str, near: str, folder: Path) -> str:
    "Some HTML with its inline pictures and videos in files; frames not yet shown are loaded when they are"
    def moved(m):
        name, _, _ = keep(base64.b64decode(m[3]), folder, m[2])
        return f'src="{folder.name}/{name}"' + (' loading="lazy"' if m[1] == 'image' else '')
    text = re.sub(r'alt="([^"]*)"', lambda m: f'alt="{html.escape(near)}: {m[1]}"', text) if near else text
    return INLINE.sub(moved, text)


def plain(text: str) -> str:
    "The words of some Markdown"
    text = re.sub(r'```.*?```|^\s*\|.*$|^#.*$|<[^>]+>', ' ', text, flags=re.S | re.M)
    text = re.sub(r'!?\[([^\]]*)\]\([^)]*\)', r'\1', text)
    return re.sub(r'\s+', ' ', re.sub(r'[*`>]', '', text)).strip()


def _tree(source: str):
    lines = [line for line in source.splitlines() if not re.match(r'\s*[%!]', line)]
    try: return ast.parse('\n'.join(lines))
    except SyntaxError: return ast.parse('')


def _words(node) -> list[str]:
    "The text of a string, an f-string or a list of them; what is filled in later is left out"
    if isinstance(node, ast.Constant): return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        text = ''.join(p.value if isinstance(p, ast.Constant) else '...' for p in node.values)
        return [text] if re.search(r'\w', text.replace('...', '')) else []
    if isinstance(node, (ast.List, ast.Tuple)): return [w for e in node.elts for w in _words(e)]
    return []


WHERE = dict(set_title='title', suptitle='title', title='title', set_xlabel='xlabel', xlabel='xlabel',
             set_ylabel='ylabel', ylabel='ylabel')


def labels(source: str, functions: dict, depth: int = 3) -> dict:
    "Titles and axes that a cell writes, itself or by the notebook's functions that it calls"
    found = dict(title=[], xlabel=[], ylabel=[])
    def note(kind, words): found[kind] += [w for w in words if w not in found[kind]]
    for call in (n for n in ast.walk(_tree(source)) if isinstance(n, ast.Call)):
        name = getattr(call.func, 'attr', getattr(call.func, 'id', ''))
        if name in WHERE and call.args: note(WHERE[name], _words(call.args[0]))
        for k in call.keywords:
            if k.arg in found: note(k.arg, _words(k.value))
            if k.arg == 'titles': note('title', _words(k.value))
        if depth and name in functions:
            inner = labels(functions[name], {k: v for k, v in functions.items() if k != name}, depth - 1)
            for kind, words in inner.items(): note(kind, words)
    return found


def called(source: str, functions: dict, depth: int = 3) -> str:
    "A cell's code with that of the notebook's functions it calls"
    names = {getattr(c.func, 'id', '') for c in ast.walk(_tree(source)) if isinstance(c, ast.Call)} & set(functions)
    rest = {k: v for k, v in functions.items() if k not in names}
    return source + ''.join(called(functions[n], rest, depth - 1) for n in sorted(names) if depth)


def functions_of(sources) -> dict:
    "The functions that some cells define, by name"
    nodes = [n for s in sources for n in ast.walk(_tree(s)) if isinstance(n, ast.FunctionDef)]
    return {n.name: ast.unparse(n) for n in nodes}


def alt_text(source: str, prose: str, heading: str, functions: dict) -> str:
    "What a figure shows: the author's `fig-alt`, or the sentence before it with the figure's titles and axes"
    if own := re.search(r'^#\| fig-alt: *(.+)$', source, re.M): return own[1].strip().strip('"\'')
    sentences = [x for x in re.split(r'(?<=[.:?!])\s+(?=[A-Z`$])', plain(prose)) if len(x) > 12]
    said = ' '.join(sentences[-2:] if sentences and len(sentences[-1]) < 60 else sentences[-1:]).rstrip(': ')
    told, inside = labels(source, functions), called(source, functions)
    kind = 'Pictures' if re.search(r'show_images|imshow', inside) else 'Chart'
    parts = [f'{kind}, {heading}.' if heading else f'{kind}.', said[:260] + '.'*bool(said and said[-1] not in '.?!')]
    if told['title']: parts.append('Titles: ' + ', '.join(told['title'][:8]) + '.')
    if told['xlabel'] or told['ylabel']:
        parts.append('Axes: ' + ' against '.join('/'.join(told[k][:4]) for k in ('ylabel', 'xlabel') if told[k]) + '.')
    return re.sub(r'\s+', ' ', ' '.join(filter(None, parts))).strip()
