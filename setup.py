"""What pyproject.toml cannot say: the packages of a wheel are the folders as they are, `app` under a name of its own.

`app` would be anybody's name among installed packages, so there the app is `zocore_app`.
"""

from setuptools import find_packages, setup

APP = ["zocore_" + name for name in find_packages(include=["app", "app.*"])]
setup(packages=find_packages(include=["zocore", "zocore.*"]) + APP, package_dir={"zocore_app": "app"})
