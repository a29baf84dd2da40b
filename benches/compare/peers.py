"""The programs that are compared, each with its configuration for the same job.

The job: listen on cleartext HTTP/1.1 and on TLS 1.3 (HTTP/2 by ALPN); below /api/, verify an RS256 token (signature, exp, iss, aud),
require the role `admin`, count the caller against a limit that is never reached, and send the subject to the upstream in
X-Auth-Subject; below /public/, check nothing; forward over keep-alive connections. Below /bench.Echo/ and /ws/, do the same as below
/api/ for gRPC calls to an h2c server and for WebSockets. Programs with `checks=False` only forward.
"""

from dataclasses import dataclass, field

ISSUER, AUDIENCE, ROLE = "https://id.example.com", "orders", "admin"


@dataclass
class Peer:
    name: str
    command: list
    files: dict = field(default_factory=dict)
    checks: bool = True
    # A program without TLS of its own takes no part in the rows over TLS.
    tls: bool = True
    # An application answers by itself, and has no upstream.
    forwards: bool = True


PORTCULLIS = """
[server]
http    = "127.0.0.1:{plain}"
https   = "127.0.0.1:{tls}"
admin   = ""
plain   = "serve"
workers = 1

[tls]
certificate = "{folder}/cert.pem"
key         = "{folder}/key.pem"

[state]
dir = "{folder}/state-{name}"

[log]
access = "off"

[[issuer]]
issuer     = "{issuer}"
audience   = "{audience}"
algorithms = "RS256"
jwks       = "{folder}/jwks.json"

[rate_limit.callers]
by   = "subject"
rate = "1000000/s"

[upstream.app]
servers = ["http://127.0.0.1:{upstream}"]

[upstream.echo]
servers = ["http://127.0.0.1:{echo}"]

[[route]]
path        = "/api/{{*rest}}"
upstream    = "app"
roles       = ["{role}"]
rate_limits = ["callers"]

[upstream.grpc]
servers  = ["http://127.0.0.1:{grpc}"]
protocol = "http2"

[[route]]
path        = "/bench.Echo/{{method}}"
upstream    = "grpc"
roles       = ["{role}"]
rate_limits = ["callers"]

[[route]]
path        = "/ws/{{*rest}}"
upstream    = "echo"
websocket   = true
roles       = ["{role}"]
rate_limits = ["callers"]

[[route]]
path     = "/public/{{*rest}}"
upstream = "app"
access   = "public"
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx-peer.pid; error_log stderr crit; {user}
events {{ worker_connections 16384; }}
http {{
    access_log off; keepalive_requests 100000000; client_max_body_size 16m;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    upstream app {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
    upstream grpc {{ server 127.0.0.1:{grpc}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl http2;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;
        ssl_session_cache shared:s:8m;
        location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_request_buffering off; }}
        location /bench.Echo/ {{ grpc_pass grpc://grpc; }}
        location /ws/ {{
            proxy_pass http://127.0.0.1:{echo}; proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
        }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
backend callers
    stick-table type string len 64 size 100k expire 60s store http_req_rate(10s)
frontend edge
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {folder}/cert-and-key.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3
    acl open path_beg /public/
    http-request del-header X-Auth-Subject
    http-request set-var(txn.token) http_auth_bearer
    http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
    http-request set-var(txn.iss) http_auth_bearer,jwt_payload_query('$.iss')
    http-request set-var(txn.aud) http_auth_bearer,jwt_payload_query('$.aud')
    http-request set-var(txn.sub) http_auth_bearer,jwt_payload_query('$.sub')
    http-request set-var(txn.role) http_auth_bearer,jwt_payload_query('$.role')
    http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless open or {{ var(txn.alg) -m str RS256 }}
    http-request deny deny_status 401 unless open or {{ var(txn.token),jwt_verify(txn.alg,"{folder}/public.pem") -m int 1 }}
    http-request deny deny_status 401 unless open or {{ var(txn.iss) -m str {issuer} }}
    http-request deny deny_status 401 unless open or {{ var(txn.aud) -m str {audience} }}
    http-request deny deny_status 401 if !open {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 403 unless open or {{ var(txn.role) -m str {role} }}
    http-request track-sc0 var(txn.sub) table callers unless open
    http-request deny deny_status 429 if !open {{ sc_http_req_rate(0) gt 10000000 }}
    http-request set-header X-Auth-Subject %[var(txn.sub)] unless open
    use_backend echo if {{ path_beg /ws/ }}
    use_backend grpc if {{ path_beg /bench.Echo/ }}
    default_backend app
backend echo
    server echo 127.0.0.1:{echo}
backend grpc
    server grpc 127.0.0.1:{grpc} proto h2
backend app
    server app 127.0.0.1:{upstream}
"""

ENVOY_CHAIN = """
          - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                codec_type: AUTO
                common_http_protocol_options: {{ idle_timeout: 60s }}
                route_config:
                  virtual_hosts:
                  - name: all
                    domains: ["*"]
                    request_headers_to_remove: []
                    routes:
                    - match: {{ prefix: "/ws/" }}
                      route: {{ cluster: echo, timeout: 0s, upgrade_configs: [{{ upgrade_type: websocket }}] }}
                    - match: {{ prefix: "/bench.Echo/" }}
                      route: {{ cluster: grpc, timeout: 60s }}
                    - match: {{ prefix: "/" }}
                      route: {{ cluster: app, timeout: 60s }}
                http_filters:
                - name: envoy.filters.http.jwt_authn
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
                    providers:
                      id:
                        issuer: {issuer}
                        audiences: [{audience}]
                        local_jwks: {{ filename: {folder}/jwks.json }}
                        payload_in_metadata: claims
                        claim_to_headers: [{{ header_name: X-Auth-Subject, claim_name: sub }}]
                        jwt_cache_config: {{ jwt_cache_size: 20000 }}
                    rules:
                    - match: {{ prefix: "/api/" }}
                      requires: {{ provider_name: id }}
                    - match: {{ prefix: "/ws/" }}
                      requires: {{ provider_name: id }}
                    - match: {{ prefix: "/bench.Echo/" }}
                      requires: {{ provider_name: id }}
                - name: envoy.filters.http.rbac
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
                    rules:
                      action: ALLOW
                      policies:
                        open:
                          permissions: [{{ url_path: {{ path: {{ prefix: "/public/" }} }} }}]
                          principals: [{{ any: true }}]
                        role:
                          permissions: [{{ any: true }}]
                          principals:
                          - metadata:
                              filter: envoy.filters.http.jwt_authn
                              path: [{{ key: claims }}, {{ key: roles }}]
                              value: {{ list_match: {{ one_of: {{ string_match: {{ exact: {role} }} }} }} }}
                - name: envoy.filters.http.local_ratelimit
                  typed_config:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
                    stat_prefix: limit
                    token_bucket: {{ max_tokens: 4000000000, tokens_per_fill: 4000000000, fill_interval: 1s }}
                    filter_enabled: {{ default_value: {{ numerator: 100 }} }}
                    filter_enforced: {{ default_value: {{ numerator: 100 }} }}
                - name: envoy.filters.http.router
                  typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"""

ENVOY = (
    """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {plain} }} }}
    filter_chains:
"""
    + ENVOY_CHAIN.replace("\n          ", "\n    ")
    + """
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {tls} }} }}
    filter_chains:
"""
    + ENVOY_CHAIN.replace("\n          ", "\n    ")
    + """
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: {folder}/cert.pem }}
              private_key: {{ filename: {folder}/key.pem }}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
  - name: grpc
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: grpc
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {grpc} }} }} }}
  - name: echo
    type: STATIC
    load_assignment:
      cluster_name: echo
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {echo} }} }} }}
"""
)

CADDY = """
{{
    admin off
    auto_https off
    default_sni localhost
    persist_config off
    storage file_system {folder}/caddy
    servers {{
        protocols h1 h2
    }}
}}
(app) {{
    bind 127.0.0.1
    handle /ws/* {{
        reverse_proxy 127.0.0.1:{echo}
    }}
    handle /bench.Echo/* {{
        reverse_proxy h2c://127.0.0.1:{grpc}
    }}
    handle {{
        reverse_proxy 127.0.0.1:{upstream}
    }}
}}
http://127.0.0.1:{plain} {{
    import app
}}
https://127.0.0.1:{tls}, https://localhost:{tls} {{
    import app
    tls {folder}/cert.pem {folder}/key.pem
}}
"""

TRAEFIK = """
entryPoints:
  plain: {{ address: "127.0.0.1:{plain}" }}
  tls: {{ address: "127.0.0.1:{tls}", http: {{ tls: {{}} }} }}
providers: {{ file: {{ filename: "{folder}/traefik-routes.yaml" }} }}
global: {{ checkNewVersion: false, sendAnonymousUsage: false }}
log: {{ level: ERROR }}
"""

TRAEFIK_ROUTES = """
tls:
  certificates: [{{ certFile: "{folder}/cert.pem", keyFile: "{folder}/key.pem" }}]
http:
  routers:
    plain: {{ rule: "PathPrefix(`/`)", service: app, entryPoints: [plain] }}
    tls: {{ rule: "PathPrefix(`/`)", service: app, entryPoints: [tls], tls: {{}} }}
    grpc: {{ rule: "PathPrefix(`/bench.Echo/`)", service: grpc, entryPoints: [tls], tls: {{}} }}
    sockets: {{ rule: "PathPrefix(`/ws/`)", service: echo, entryPoints: [plain] }}
  services:
    echo: {{ loadBalancer: {{ servers: [{{ url: "http://127.0.0.1:{echo}" }}] }} }}
    grpc: {{ loadBalancer: {{ servers: [{{ url: "h2c://127.0.0.1:{grpc}" }}] }} }}
    app: {{ loadBalancer: {{ servers: [{{ url: "http://127.0.0.1:{upstream}" }}] }} }}
"""


def portcullis(name, binary):
    return Peer(name, [binary, "run", "--config", "{folder}/" + f"{name}.toml"], {f"{name}.toml": PORTCULLIS})


def all_peers(binaries, scripts):
    """Returns the peers. `binaries` maps names to builds of Portcullis; `scripts` is the folder of the environment's programs."""
    return [
        Peer("nginx", ["nginx", "-c", "{folder}/nginx-peer.conf"], {"nginx-peer.conf": NGINX}, checks=False),
        *(portcullis(name, binary) for name, binary in binaries.items()),
        Peer("haproxy", ["haproxy", "-db", "-f", "{folder}/haproxy.cfg"], {"haproxy.cfg": HAPROXY}),
        Peer(
            "envoy",
            ["{scripts}/../envoy", "--concurrency", "1", "-l", "error", "--disable-hot-restart", "-c", "{folder}/envoy.yaml"],
            {"envoy.yaml": ENVOY},
        ),
        Peer(
            "caddy",
            [scripts / "caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/Caddyfile"],
            {"Caddyfile": CADDY},
            checks=False,
        ),
        Peer(
            "traefik",
            [scripts / "traefik", "--configFile={folder}/traefik.yaml"],
            {"traefik.yaml": TRAEFIK, "traefik-routes.yaml": TRAEFIK_ROUTES},
            checks=False,
        ),
        Peer(
            "flask-jwt-extended",
            [scripts / "gunicorn", "--chdir", "{here}", "--log-level", "error", "--no-control-socket", "--bind", "127.0.0.1:{plain}"]
            + ["--workers", "2", "--worker-class", "gthread", "--threads", "8", "flask_app:application()"],
            tls=False,
            forwards=False,
        ),
    ]
