#!/usr/bin/env bash
# Installs the pinned packages that the scripts of a folder need, once: packages.sh SCRIPTS FOLDER
# Python's packages go into FOLDER/venv, Node's into FOLDER/node_modules, beside a copy of the Node scripts.
# Several tests may ask at the same time; the first installs, and the others wait.
set -euo pipefail
scripts=$1
folder=$2
mkdir -p "$folder"
exec 9>"$folder/lock"
flock 9
"$(dirname "$0")/compat/venv.sh" "$folder/venv" "$scripts/requirements.txt"
# Another test may run the copy of a script, so a copy is never half-written.
for script in "$scripts"/*.mjs; do
    copy=$folder/${script##*/}
    cmp --silent "$script" "$copy" || { cp "$script" "$copy.new" && mv "$copy.new" "$copy"; }
done
cmp --silent "$scripts/package.json" "$folder/made-of.json" && exit 0
cp "$scripts/package.json" "$folder/package.json"
(cd "$folder" && npm install --silent --no-audit --no-fund --ignore-scripts)
cp "$scripts/package.json" "$folder/made-of.json"
