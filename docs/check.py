"""What a finished site must hold to: sizes, internal links that lead somewhere, a text for every picture, nothing fetched."""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE_MB, PAGE_MB = 25, 2
SHORTEST_ALT = 12  # characters; less says nothing


class Page(HTMLParser):
    "Links, anchors, pictures and what a browser fetches, of one page"
    def __init__(self, file: Path):
        super().__init__()
        self.links, self.anchors, self.pictures, self.fetched = [], set(), [], []
        self.feed(file.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[k] for k in ('id', 'name') if found.get(k)}
        if tag == 'a' and found.get('href'): self.links.append(found['href'])
        if tag == 'img': self.pictures.append((found.get('src', ''), found.get('alt')))
        if tag in ('img', 'script', 'video', 'source', 'audio', 'iframe') and found.get('src'): self.fetched.append(found['src'])
        if tag == 'link' and found.get('rel') in ('stylesheet', 'preload', 'icon', 'shortcut icon'): self.fetched.append(found['href'])


def leads(url: str, file: Path, root: Path, pages: dict):
    "What is wrong with a link on page `file`, or None"
    parts = urlsplit(url)
    if parts.scheme or parts.netloc: return None
    target = (file.parent/unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir(): target = target/'index.html'
    if root not in target.parents: return 'leads out of the site'
    if not target.exists(): return 'leads nowhere'
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors: return 'has no such place'
    return None


def problems(root) -> list[str]:
    "A line for everything that is wrong with the site in a folder"
    root = Path(root).resolve()
    pages = {f: Page(f) for f in sorted(root.rglob('*.html'))}
    found = []
    if not pages: return [f'{root}: no page']
    for file, page in pages.items():
        name = file.relative_to(root).as_posix()
        own = {(file.parent/unquote(urlsplit(s).path)).resolve() for s, _ in page.pictures if not s.startswith('data:')}
        weight = file.stat().st_size + sum(f.stat().st_size for f in own if f.exists())
        if weight > PAGE_MB*1e6: found.append(f'{name}: {weight/1e6:.1f} MB with its pictures, more than {PAGE_MB}')
        for url in dict.fromkeys(page.links + page.fetched):
            if wrong := leads(url, file, root, pages): found.append(f'{name}: {url} {wrong}')
        for url in page.fetched:
            if re.match(r'(https?:)?//', url): found.append(f'{name}: fetches {url}')
        for url, alt in page.pictures:
            if '_static/' in url: continue  # the theme's, beside words that say the same
            if alt is None or len(alt) < SHORTEST_ALT: found.append(f'{name}: {url[:60]} says {alt!r} to who does not see it')
    size = sum(f.stat().st_size for f in root.rglob('*') if f.is_file())
    if size > SITE_MB*1e6: found.append(f'the site has {size/1e6:.1f} MB, more than {SITE_MB}')
    return found


if __name__ == '__main__':
    wrong = problems(sys.argv[1])
    print('\n'.join(wrong))
    sys.exit(bool(wrong))
