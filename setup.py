"""The recipes travel in the wheel, as `spfem_dist.recipes`: `spfem train cdrl_stage1` needs no checkout. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["spfem_dist", "spfem_dist.*"]), "spfem_dist.recipes"],
    package_dir={"spfem_dist.recipes": "recipes"},
)
