"""The site in a real browser: a few pages are built and opened; FACEPRIVACY_SITE names a finished site to test whole."""
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import pytest

from faceprivacy.core import path

sys.path.insert(0, str(path('docs')))
import check

NOTEBOOKS = ['08_pairs', '10_slerp']  # a quick one and the first of the papers
WHOLE = os.environ.get('FACEPRIVACY_SITE')


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "The folder of the site's pages"
    if WHOLE: return Path(WHOLE).resolve()
    out = tmp_path_factory.mktemp('site')
    done = subprocess.run([sys.executable, path('docs/build.py'), *NOTEBOOKS, '--out', out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out/'html'


@pytest.fixture(scope='session')
def pages(site): return sorted(f.relative_to(site).as_posix() for f in site.rglob('*.html') if '_static' not in f.parts)


@pytest.fixture(scope='session')
def served(site):
    "The site's address on this machine"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


@pytest.fixture
def opened(browser, served):
    "A function that opens a page and keeps what went wrong on it"
    contexts = []
    def go(name, **kw):
        context = browser.new_context(**kw)
        contexts.append(context)
        context.set_default_timeout(90_000)
        page = context.new_page()
        page.wrong = []
        page.on('console', lambda m: page.wrong.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: page.wrong.append(str(e)))
        page.on('request', lambda r: page.wrong.append(f'fetches {r.url}') if not r.url.startswith((served, 'data:', 'blob:')) else None)
        page.goto(served + name, wait_until='load')
        return page
    yield go
    for context in contexts: context.close()


# The files

def test_nothing_is_wrong_with_the_files(site): assert check.problems(site) == []


def test_what_is_wrong_is_found(tmp_path):
    (tmp_path/'index.html').write_text('<a href="gone.html">x</a><a href="b.html#no">x</a><img src="p.png" alt="a">'
                                       '<script src="https://example.org/x.js"></script><a href="b.html#yes">x</a>')
    (tmp_path/'b.html').write_text('<p id="yes">' + 'x'*2_100_000)
    told = '\n'.join(check.problems(tmp_path))
    for what in ('gone.html leads nowhere', 'b.html#no has no such place', 'fetches https://example.org', "says 'a'",
                 'b.html: 2.1 MB', 'p.png leads nowhere'):
        assert what in told
    assert '#yes' not in told
    assert check.problems(tmp_path/'nothing') != []


def test_every_widget_has_a_twin_without_a_kernel():
    for file in [*path('nbs').glob('*.ipynb'), *path('nbs').glob('tutorials/*.ipynb')]:
        code = '\n'.join(c.source for c in nbformat.read(file, as_version=4).cells if c.cell_type == 'code')
        if re.search(r'^@?interact\(|^interactive', code, re.M): assert re.search(r'\bscrub\(', code), file.name


def test_pages_follow_each_other(site, pages):
    "From the front page, `next` leads through all pages in reading order, and `prev` back"
    def neighbour(name, which):
        m = re.search(rf'<link rel="{which}" title="[^"]*" href="([^"]+)"', (site/name).read_text(encoding='utf-8'))
        return m and os.path.normpath(os.path.join(os.path.dirname(name), m[1]))
    seen, at = ['index.html'], neighbour('index.html', 'next')
    while at:
        assert at not in seen
        assert neighbour(at, 'prev') == seen[-1]
        seen.append(at)
        at = neighbour(at, 'next')
    made = {p for p in pages if not p.startswith('_modules/')} - {'genindex.html', 'py-modindex.html', 'search.html'}
    assert set(seen) == made
    numbered = [s for s in seen if re.match(r'(1|2|3|4|5)\d', s)]
    assert numbered == sorted(numbered)


def test_every_notebook_page_says_what_made_it(site):
    for file in site.glob('[0-9]*.html'):
        text = file.read_text(encoding='utf-8')
        assert re.search(rf'class="made-line">[^<]*<a href="[^"]*nbs/{file.stem}\.ipynb"', text), file.name
        for figure in re.findall(r'<figure class="made">.*?</figure>', text, flags=re.S):
            assert f'nbs/{file.stem}.ipynb' in figure, file.name


# In the browser

def test_pages_open_without_errors(opened, served, pages):
    page = opened('index.html')
    for name in pages:
        page.goto(served + name, wait_until='load')
        assert page.wrong == [], name
        assert page.locator('h1').count() >= 1, name


def test_mathematics_is_set(opened):
    page = opened('10_slerp.html')
    page.wait_for_selector('mjx-container svg, mjx-container mjx-math')
    page.evaluate('document.fonts.ready')
    assert page.locator('mjx-merror').count() == 0
    assert page.wrong == []


SCRUBS = '''() => [...document.querySelectorAll('figure.scrub')].map(f =>
    [...f.querySelectorAll('img')].findIndex(m => !m.hidden) + ' ' + f.querySelector('output').value)'''


def test_each_scrub_moves_by_keyboard(opened, served, site, pages):
    page, moved = opened('index.html'), 0
    for name in (p for p in pages if 'class="scrub"' in (site/p).read_text(encoding='utf-8')):
        page.goto(served + name, wait_until='load')
        for slider in page.locator('figure.scrub input[type=range]').all():
            if slider.get_attribute('max') == '0': continue
            before = page.evaluate(SCRUBS)
            at_end = slider.input_value() == slider.get_attribute('max')
            slider.focus()
            page.keyboard.press('ArrowLeft' if at_end else 'ArrowRight')
            after = page.evaluate(SCRUBS)
            assert sum(a != b for a, b in zip(before, after)) == 1, f'{name}: a slider moves nothing'
            shown = slider.locator('xpath=ancestor::figure[1]').locator('img:not([hidden])')
            assert shown.count() == 1
            assert shown.evaluate('m => m.decode().then(() => m.naturalWidth)') > 0
            moved += 1
        assert page.wrong == [], name
    assert moved >= 3


def test_search_finds_slerp(opened):
    page = opened('search.html?q=slerp')
    page.wait_for_selector('#search-results li a')
    found = page.locator('#search-results li a').evaluate_all('links => links.map(a => a.getAttribute("href"))')
    assert any('10_slerp' in f for f in found) and any('api/slerp' in f for f in found)
    page.goto(page.url.replace('search.html?q=slerp', 'index.html'))
    page.keyboard.press('Control+k')
    page.keyboard.type('slerp')
    page.keyboard.press('Enter')
    page.wait_for_url('**/search.html?q=slerp')
    assert page.wrong == []


CONTRAST = '''() => {
  const parse = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => { const v = c.slice(0, 3).map(x => (x /= 255) <= .03928 ? x/12.92 : ((x + .055)/1.055)**2.4);
                       return .2126*v[0] + .7152*v[1] + .0722*v[2]; };
  const over = (a, b) => { const t = a.length > 3 ? a[3] : 1; return [0, 1, 2].map(i => a[i]*t + b[i]*(1 - t)); };
  const ground = e => { const layers = []; for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
                        return layers.reverse().reduce((b, c) => over(c, b), [255, 255, 255]); };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement, s = getComputedStyle(e);
    if (!n.data.trim() || !e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true}) || e.closest('svg, mjx-assistive-mml, script, style, .visually-hidden, .skip-link, .headerlink')) continue;
    const b = ground(e), f = over(parse(s.color), b), [x, y] = [light(f), light(b)].sort((p, q) => q - p);
    const ratio = (x + .05)/(y + .05), px = parseFloat(s.fontSize), large = px >= 24 || (px >= 18.66 && s.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) bad.push(ratio.toFixed(2) + ' ' + s.color + ' on ' + b.map(Math.round) + ': ' + n.data.trim().slice(0, 40));
  }
  return [...new Set(bad)];
}'''


@pytest.mark.parametrize('mode', ['dark', 'light'])
def test_text_stands_out(opened, served, site, mode):
    page = opened('index.html', color_scheme=mode)
    assert page.evaluate('document.documentElement.dataset.theme') == mode
    names = ['index', '10_slerp', 'api/slerp', 'about', 'overview', 'changelog', 'model_cards', *(['90_results'] if WHOLE else [])]
    for name in names:
        page.goto(f'{served}{name}.html', wait_until='load')
        assert page.evaluate(CONTRAST) == [], name


def test_too_little_contrast_is_found(opened):
    page = opened('about.html')
    page.evaluate('document.querySelector("h1").style.color = "#cccccc"')
    assert len(page.evaluate(CONTRAST)) == 1


def test_the_theme_is_switched(opened):
    page = opened('index.html', color_scheme='light')
    page.locator('button.theme-switch-button:visible').first.click()
    page.locator('[data-mode=dark]:visible').last.click()
    assert page.evaluate('document.documentElement.dataset.theme') == 'dark'


def test_a_phone_does_not_scroll_sideways(opened, served, pages):
    page = opened('index.html', viewport=dict(width=360, height=740), is_mobile=True, has_touch=True)
    wide = []
    for name in pages:
        page.goto(served + name, wait_until='load')
        if page.evaluate('Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)') > 360: wide.append(name)
    assert wide == []


def test_the_first_tab_skips_to_the_text(opened):
    page = opened('10_slerp.html')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.getAttribute("href")') == '#main-content'
