#!/bin/sh
# DVC 3.67.1: 'dvc repro' reads params.yaml once for each stage, and ruamel.yaml 0.19.1, which it uses, does that in Python.
#
# Up to 0.18 ruamel.yaml brought a parser in C along (ruamel.yaml.clib). Since 0.19 it is a package that nothing asks for.
# With 30 stages and parameters of 120 lines the file is read more than 30 times in a 'dvc repro' that does nothing. With
# the parser in C one reading took less than half the time.
#
# Exits with 1 if this is no longer so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1 ruamel.yaml==0.19.1
PATH="$folder/venv/bin:$PATH"
mkdir "$folder/project" && cd "$folder/project"
dvc init --quiet --no-scm
python - <<'PYTHON'
from pathlib import Path

Path("params.yaml").write_text("".join(f"parameter_{i}: {i}  # a number\n" for i in range(120)))
stage = "  stage_{0}:\n    cmd: echo {0} > {0}.txt\n    params: [parameter_{0}]\n    outs: [{0}.txt]\n"
Path("dvc.yaml").write_text("stages:\n" + "".join(stage.format(i) for i in range(30)))
PYTHON
dvc repro --quiet
cat > count.py <<'PYTHON'
"""A 'dvc repro' that does nothing: how often params.yaml is parsed, in which language, and how long one parse takes."""

import time
from pathlib import Path

import ruamel.yaml.main as ruamel
from dvc.cli import main

parsed = []
load = ruamel.YAML.load


def counted(self, stream):
    parsed.append(str(stream).startswith("parameter_0"))
    return load(self, stream)


ruamel.YAML.load = counted
assert main(["repro", "--quiet"]) == 0
text, times = Path("params.yaml").read_text(), []
for _ in range(20):
    start = time.process_time()
    load(ruamel.YAML(typ="safe"), text)
    times.append(time.process_time() - start)
print(sum(parsed), "C" if ruamel.CParser else "Python", f"{min(times) * 1e3:.2f}")
PYTHON
python count.py > without.txt
pip install --quiet --disable-pip-version-check ruamel.yaml.clib==0.2.15
python count.py > with.txt
echo "params.yaml parsed so often, in, ms a parse:" && cat without.txt with.txt
python - <<'PYTHON'
from pathlib import Path

(often, language, slow), (_, other, fast) = (Path(f"{name}.txt").read_text().split() for name in ("without", "with"))
assert int(often) >= 30 and language == "Python" and other == "C" and float(slow) > 2 * float(fast)
PYTHON
