"""Puts the data folders of the checkout's top level into the wheel; everything else is in pyproject.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = ("config", "proxies")


class BuildWithData(build_py):
    """Copies ``config/`` and ``proxies/`` to ``crystalgfn/config/`` and ``crystalgfn/proxies/``.

    An editable installation finds them where they are (`crystalgfn.utils.files.data_folder`).
    """

    def run(self) -> None:
        """Build the package, then add the data."""
        super().run()
        if not self.editable_mode:
            for name in DATA:
                shutil.copytree(name, Path(self.build_lib, "crystalgfn", name), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
