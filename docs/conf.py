"""Sphinx settings of the site; docs/build.py lays the pages."""
from configparser import ConfigParser
from pathlib import Path

config = ConfigParser(delimiters=['='], interpolation=None)
config.read(Path(__file__).resolve().parent.parent/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']

project = settings['lib_name']
author = settings['author']
copyright = settings['copyright']
version = release = settings['version']
extensions = ['myst_nb']
nb_execution_mode = 'off'  # pages show what the pipeline computed
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['dollarmath', 'amsmath', 'attrs_inline', 'colon_fence']
html_theme = 'pydata_sphinx_theme'
html_title = project
html_show_sourcelink = False
html_theme_options = {'navbar_end': ['theme-switcher', 'navbar-icon-links'], 'show_prev_next': True,
                      'secondary_sidebar_items': ['page-toc'], 'footer_end': []}
exclude_patterns = ['jupyter_execute']
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type']
