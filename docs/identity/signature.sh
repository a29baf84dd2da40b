#!/usr/bin/env bash
# Checks a request's X-Auth-Signature with openssl, and shows which headers are signed: signature.sh METHOD TARGET, with the
# request's header fields on standard input, one a line, names in lower case. The comparison is not in constant time, so use this
# script only for debugging.
set -euo pipefail
declare -A field
while IFS=: read -r name value; do
    [ -z "${field[$name]+known}" ] || exit 1 # a field that occurs twice has no single value
    field["$name"]=${value# }
done
IFS=';' read -r version made names tag <<<"${field[x-auth-signature]:?no signature}"
made=${made#t=} names=${names#h=} tag=${tag#s=}
signed=$(printf '%s\n' "$version" "$made" "$1" "$2"; IFS=,; for name in $names; do printf '%s:%s\n' "$name" "${field[$name]}"; done; echo x)
expected=$(printf '%s' "${signed%x}" | openssl dgst -sha256 -hmac "$IDENTITY_SECRET" -binary | base64 | tr '+/' '-_' | tr -d '=')
[ "$version" = v1 ] && [ "$tag" = "$expected" ] && age=$(($(date +%s) - made)) && [ "${age#-}" -le 60 ] && echo "proven: $names"
