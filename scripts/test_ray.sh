#!/usr/bin/env bash
# Ray in an environment of its own, .venv-ray, which sees the packages of .venv. The proofs, and the cluster that they
# start and stop, are in prove_ray.py.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1

env=.venv-ray
if [ ! -e $env/.ready ]; then
  .venv/bin/python -m venv --clear $env
  $env/bin/python -m pip install --quiet --disable-pip-version-check 'ray>=2.40,<3' 2>$env/pip.log ||
    { tail -n 3 $env/pip.log >&2; exit 2; }
  # addsitedir, so that a checkout that .venv refers to counts too
  $env/bin/python - <<'PY'
import site, subprocess
packages = subprocess.check_output([".venv/bin/python", "-c", "import site; print(site.getsitepackages()[0])"], text=True)
with open(site.getsitepackages()[0] + "/snnrobust.pth", "w") as file:
    file.write(f"import site; site.addsitedir({packages.strip()!r})\n")
PY
  touch $env/.ready
fi
RAY_AUTH_TOKEN=$($env/bin/python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
exec $env/bin/python scripts/prove_ray.py
