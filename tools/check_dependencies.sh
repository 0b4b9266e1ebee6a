#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Known vulnerabilities of what is installed, and licenses. Without the network the first part is skipped, loudly.
#   tools/check_dependencies.sh PYTHON PIP_AUDIT
# PIP_AUDIT is a program in an environment of its own, so that it changes nothing in what it judges.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv-test/bin/python}
audit=${2:-.venv-audit/bin/pip-audit}

"$python" -m tools.docs.license_list --check

skip() { printf '\n*** pip-audit SKIPPED: %s ***\n\n' "$1" >&2; }
if ! "$audit" --version >/dev/null 2>&1; then
    skip "$audit does not run; python3 -m venv .venv-audit && .venv-audit/bin/pip install pip-audit"
    exit 0
fi
# The advisory service of PyPI, asked about one old release. A mirror of packages alone answers something else, and
# pip-audit would then find nothing and say so as if all were well.
if ! "$python" - <<'PROBE'
import json
import sys
import urllib.request
try:
    with urllib.request.urlopen("https://pypi.org/pypi/urllib3/1.25.8/json", timeout=10) as answer:
        known = json.load(answer)["vulnerabilities"]
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
sys.exit(0 if known else "no vulnerability of an old release that has some")
PROBE
then
    skip "the advisory service at pypi.org is not reached from here"
    exit 0
fi
PIPAPI_PYTHON_LOCATION=$("$python" -c "import sys; print(sys.executable)") "$audit" --skip-editable --progress-spinner off
