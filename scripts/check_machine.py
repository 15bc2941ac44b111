"""Says in one line what a machine lacks before anything is installed. Runs on any Python 3."""

import shutil
import sys
import sysconfig

OLDEST, NEWEST = (3, 11), (3, 13)
NEEDS_COMPILER = (3, 12)


def complaint():
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        return "Python 3.11, 3.12 or 3.13 is needed, found %d.%d: make setup PYTHON=python3.11" % version  # noqa: UP031
    if version >= NEEDS_COMPILER:
        compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
        if shutil.which(compiler) is None and shutil.which("gcc") is None:
            return (
                "a C compiler is needed on Python 3.12 and 3.13 (tonic's expelliarmus has no wheel there): install gcc"
            )
    return None


if __name__ == "__main__":
    problem = complaint()
    if problem:
        sys.exit("snnrobust: " + problem)
