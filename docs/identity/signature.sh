#!/usr/bin/env bash
# Checks a request's X-Auth-Signature with openssl, to see what is signed: signature.sh METHOD TARGET, the request's header
# fields on standard input, one a line, names in lower case. (Its comparison is not in constant time: for looking, not for serving.)
set -euo pipefail
declare -A field
while IFS=: read -r name value; do field["$name"]=${value# }; done
IFS=';' read -r version made names tag <<<"${field[x-auth-signature]:?no signature}"
made=${made#t=} names=${names#h=} tag=${tag#s=}
signed=$(printf '%s\n' "$version" "$made" "$1" "$2"; IFS=,; for name in $names; do printf '%s:%s\n' "$name" "${field[$name]}"; done; echo x)
expected=$(printf '%s' "${signed%x}" | openssl dgst -sha256 -hmac "$IDENTITY_SECRET" -binary | base64 | tr '+/' '-_' | tr -d '=')
[ "$version" = v1 ] && [ "$tag" = "$expected" ] && [ $(($(date +%s) - made)) -le 60 ] && echo "proven: $names"
