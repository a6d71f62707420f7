"""Lists the packages of the top-level folders, so that a new subfolder needs no entry anywhere (settings: pyproject.toml)."""

from setuptools import find_packages, setup

FOLDERS = ("core", "domains", "data", "engine", "compat", "configs", "experiments", "benchmarks")

setup(
    packages=[f"polymamba.{name}" for name in find_packages(include=[*FOLDERS, *(f"{f}.*" for f in FOLDERS)])],
)
