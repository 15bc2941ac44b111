"""Renews requirements.lock: one pinned set for Python 3.11 to 3.13, without registry addresses.

The torch triple is pinned here because the newest torch and the newest torchaudio do not import together, and
`requests` is freed because torchattacks pins an outdated one that it never imports. Needs `uv` in the environment.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TRIPLE = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
BUILD = ["hatchling"]
HEADER = """\
# Pinned environment for Python 3.11 to 3.13. Install with: pip install --no-deps -r requirements.lock
# (--no-deps: torchattacks pins an outdated requests that it never imports.) Renewed by: make lock
"""


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())
    wanted = [*TRIPLE, *BUILD, *project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    overrides = project["tool"]["uv"]["override-dependencies"]
    with tempfile.TemporaryDirectory() as folder:
        source, override, output = (Path(folder) / name for name in ("in", "override", "lock"))
        source.write_text("\n".join(wanted) + "\n")
        override.write_text("\n".join(overrides) + "\n")
        options = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]
        command = [sys.executable, "-m", "uv", "pip", "compile", str(source), "--override", str(override), *options]
        subprocess.run([*command, "-o", str(output)], check=True)
        Path("requirements.lock").write_text(HEADER + output.read_text())


if __name__ == "__main__":
    main()
