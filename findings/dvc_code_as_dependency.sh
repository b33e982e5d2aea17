#!/bin/sh
# DVC 3.67.1: a stage cannot depend on dvc.yaml, and the file that a stage depends on may lie inside another one's folder.
#
# A stage that hashes what the other stages run cannot have the graph itself among its deps: "DVC file 'dvc.yaml' cannot be
# a dependency" (a comment in the file would be enough to be a change). But of a folder that one stage writes, others may
# name single files: they run again when their file changes, and not when only a neighbour of it does.
#
# Exits with 1 if this is no longer so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check dvc==3.67.1
PATH="$folder/venv/bin:$PATH"
mkdir "$folder/project" && cd "$folder/project"
dvc init --quiet --no-scm
dvc --version
printf 'stages:\n  one:\n    cmd: echo\n    deps: [dvc.yaml]\n' > dvc.yaml
if dvc status > refused.txt 2>&1; then echo "dvc.yaml is taken as a dependency" && exit 1; fi
cat refused.txt
grep -q "cannot be a dependency" refused.txt
cat > dvc.yaml <<'YAML'
stages:
  code:
    cmd: mkdir -p code && cp a.txt b.txt code
    deps: [a.txt, b.txt]
    outs: [code]
  a:
    cmd: cp code/a.txt of_a.txt
    deps: [code/a.txt]
    outs: [of_a.txt]
  b:
    cmd: cp code/b.txt of_b.txt
    deps: [code/b.txt]
    outs: [of_b.txt]
YAML
echo 1 > a.txt && echo 1 > b.txt
dvc repro --quiet
echo 2 > b.txt
dvc repro > again.txt
grep "Running stage" again.txt
test "$(grep "Running stage" again.txt | tr -d "\n")" = "Running stage 'code':Running stage 'b':"
