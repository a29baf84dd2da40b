#!/bin/sh
# Lays a root folder in which a program runs alone: the program, and the shared objects that it names.
# usage: docker-root.sh PROGRAM ROOT
set -eu
program=$1
root=$2
mkdir -p "$root"
cp "$program" "$root/"
ldd "$program" | sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | while read -r object; do
    mkdir -p "$root$(dirname "$object")"
    cp -L "$object" "$root$object"
done
