"""Prints the requirements of some extras of the project, so that an image can install them before copying the code."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + [
        line for extra in sys.argv[1:] for line in project["optional-dependencies"][extra]
    ]
    sys.stdout.write("\n".join(needed) + "\n")


if __name__ == "__main__":
    main()
