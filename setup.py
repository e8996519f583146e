"""Build script: everything it says is read from settings.ini."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
readme = here/'README.md'

setup(
    name=settings['lib_name'],
    version=settings['version'],
    description=settings['description'],
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    author=settings['author'],
    author_email=settings['author_email'],
    url=settings['git_url'],
    license='Apache-2.0',
    keywords=settings['keywords'].split(),
    classifiers=['Development Status :: 3 - Alpha',
                 'Intended Audience :: Education',
                 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3'],
    packages=find_packages(include=['faceprivacy', 'faceprivacy.*']),
    python_requires=f">={settings['min_python']}",
    install_requires=settings['requirements'].split(),
    extras_require={'dev': settings['dev_requirements'].split()},
    entry_points={'console_scripts': settings.get('console_scripts', '').split(),
                  'papermill.engine': ['tidy=faceprivacy.pipeline:Tidy'],
                  'nbdev': [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
)
