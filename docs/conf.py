"""Sphinx settings of the site; docs/build.py lays the pages."""
import os
import re
from configparser import ConfigParser
from pathlib import Path

config = ConfigParser(delimiters=['='], interpolation=None)
config.read(Path(__file__).resolve().parent.parent/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
out = Path(os.environ.get('FACEPRIVACY_DOCS') or Path(__file__).resolve().parent.parent/'_docs')

project = settings['lib_name']
author = settings['author']
copyright = settings['copyright']
version = release = settings['version']
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.linkcode', 'sphinx.ext.mathjax']
exclude_patterns = ['jupyter_execute']
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type', 'myst.xref_missing']

nb_execution_mode = 'off'  # pages show what the pipeline computed
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['dollarmath', 'amsmath', 'attrs_inline', 'attrs_block', 'colon_fence', 'deflist']
myst_heading_anchors = 3
mathjax_path = 'mathjax/tex-mml-chtml.js'
mathjax3_config = {'options': {'enableMenu': False}}

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_typehints_format = 'short'
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
default_role = 'code'

html_theme = 'pydata_sphinx_theme'
html_title = project
html_static_path = ['static']
html_css_files = ['site.css']
html_favicon = 'static/icon.svg'
html_extra_path = [str(out/'extra')]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_context = {'default_mode': 'auto'}
html_sidebars = {'index': [], 'search': [], '90_results': [], '**': ['sidebar-nav-bs']}
html_theme_options = {
    'logo': {'text': project, 'image_light': 'static/icon.svg', 'image_dark': 'static/icon-dark.svg'},
    'navbar_align': 'left', 'navbar_end': ['theme-switcher', 'navbar-icon-links'], 'header_links_before_dropdown': 9,
    'icon_links': [{'name': 'source on GitHub', 'url': settings['git_url'], 'icon': 'fa-brands fa-github'}],
    'show_prev_next': True, 'secondary_sidebar_items': ['page-toc'], 'show_nav_level': 2,
    'footer_start': ['copyright'], 'footer_end': [], 'back_to_top_button': True, 'collapse_navigation': False}


def plain(text):
    "Words of a docstring as reST shows them; `code` stays code"
    parts = re.split(r'(`[^`]*`)', text)
    return ''.join(p if p.startswith('`') else re.sub(r'[*|\\]|(?<=\w)_(?=\W|$)', r'\\\g<0>', p) for p in parts)


def readable(app, what, name, obj, options, lines):
    "Docstrings are plain words with `code`; parameters that carry a comment are listed below"
    lines[:] = [] if what == 'module' else map(plain, lines)  # a module's is its page's second line
    if what not in ('function', 'method', 'class'): return
    from fastcore.docments import docments
    try: told = {k: v for k, v in docments(obj).items() if v and k not in ('self', 'return')}
    except Exception: return  # builtins and wrapped callables have no source to read
    if told: lines += ['', *(f':param {k}: {plain(v)}' for k, v in told.items())]


def linkcode_resolve(domain, info):
    "Where the source of a documented object can be read"
    import importlib, inspect
    if domain != 'py' or not info['module']: return None
    found = importlib.import_module(info['module'])
    try:
        for part in info['fullname'].split('.'): found = getattr(found, part)
        found = inspect.unwrap(found.fget if isinstance(found, property) else found)
        lines, first = inspect.getsourcelines(found)
        file = Path(inspect.getsourcefile(found)).resolve().relative_to(Path(__file__).resolve().parent.parent)
    except (AttributeError, TypeError, OSError, ValueError): return None  # values have no source, others' code no place here
    return f"{settings['git_url']}/blob/{settings['branch']}/{file.as_posix()}#L{first}-L{first + len(lines) - 1}"


def setup(app):
    app.connect('autodoc-process-docstring', readable)
