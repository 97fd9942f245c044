"""What pyproject.toml cannot say: a wheel holds every folder of the engine, and the app inside a package of its own.

`app` would be anybody's name among installed packages: there it lies in `zocore_app`, which puts it on the path.
"""

from setuptools import find_packages, setup

ENGINE = find_packages(include=["zocore", "zocore.*"])
APP = [f"zocore_app.{name}" for name in find_packages(include=["app", "app.*"], exclude=["app.installed"])]
setup(
    packages=[*ENGINE, "zocore_app", *APP],
    package_dir={"zocore_app": "app/installed", "zocore_app.app": "app"},
)
