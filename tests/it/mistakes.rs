//! Mistakes of operators in the policy and its files. Each is reported with its line and a clear message.

use crate::kit::dir::Dir;
use crate::kit::portcullis::{Finished, command, command_in, completed, write_policy};
use crate::kit::{Portcullis, Request, Upstream, eventually};
use crate::reload::reload;
use crate::{PUBLIC, policy};
use serde_json::Value;
use std::net::TcpListener;

const ECHO: &str = "[upstream.echo]\nbuiltin = \"echo\"\n";
const ROUTE: &str = "[[route]]\npath = \"/x\"\nupstream = \"echo\"\n";
const SECRET: &str = "q7Vd0mY2cXk9Ru4LzTf1HsWb8JnPe5Ga";

fn issuer(rest: &str) -> String {
    format!(
        "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\nsecret = \"file:secret\"\n{rest}"
    )
}

/// Creates a folder with exactly this policy, and a secret beside it.
fn in_dir(text: &str) -> Dir {
    let dir = Dir::new();
    dir.write("gateway.toml", text);
    dir.write("secret", SECRET);
    dir
}

fn findings(checked: &Finished) -> Vec<Value> {
    let report: Value =
        serde_json::from_str(&checked.stdout).unwrap_or_else(|error| panic!("{error}: {checked:?}"));
    report["diagnostics"].as_array().unwrap().clone()
}

/// Checks that a finding has this severity, id and line, and contains these words in this order.
#[track_caller]
fn has(found: &[Value], severity: &str, id: &str, line: usize, words: &[&str]) {
    let fits = |one: &&Value| {
        let text = format!("{}; {}", one["found"].as_str().unwrap(), one["hint"].as_str().unwrap());
        let is_there = one["place"]["line"] == line && one["id"] == id && one["severity"] == severity;
        is_there && words.iter().all(|word| text.contains(word))
    };
    assert!(found.iter().any(|one| fits(&one)), "{severity} {id} {line} {words:?}: {found:#?}");
}

fn checked(dir: &Dir) -> Vec<Value> {
    findings(&command(dir, &["check", "--format", "json"]))
}

#[test]
fn each_mistake_in_the_file_is_reported_at_its_line_with_a_correction() {
    let route = format!("{ECHO}{ROUTE}");
    for (text, severity, id, line, words) in [
        // Tables and arrays of tables.
        (
            format!("[rule.none]\n{route}rule = \"none\"\n"),
            "fault",
            "missing_key",
            1,
            &["would accept every token"][..],
        ),
        (
            format!("[cors.app]\norigins = \"*\"\ncredentials = true\n{route}cors = \"app\"\n"),
            "fault",
            "bad_value",
            3,
            &["cookies of every origin"],
        ),
        (
            format!("[cors.app]\norigins = [\"https://*.com\"]\n{route}cors = \"app\"\n"),
            "fault",
            "bad_value",
            2,
            &["as a browser sends them"],
        ),
        (
            format!("[cors.app]\norigins = \"*\"\nheaders = \"*\"\n{route}cors = \"ap\"\n"),
            "fault",
            "unknown_name",
            9,
            &["cors", "app"],
        ),
        (
            format!("[cors.app]\norigins = \"*\"\nheaders = \"*\"\n{route}cors = \"app\"\n"),
            "fault",
            "bad_header",
            3,
            &["X-Api-Version"],
        ),
        (format!("{route}add_prefix = \"/v2/../x\"\n"), "fault", "bad_prefix", 6, &["/v2"]),
        (
            format!("{route}compress = [\"gzip\"]\n"),
            "fault",
            "compressed_secret",
            6,
            &["compress_with_credentials"],
        ),
        (
            format!("{route}access = \"public\"\ncompress = [\"deflate\"]\n"),
            "fault",
            "bad_value",
            7,
            &["\"zstd\", \"br\" and \"gzip\""],
        ),
        (
            format!(
                "{route}access = \"public\"\ncompress = \"br\"\ncompress_types = \"text/event-stream\"\n"
            ),
            "fault",
            "bad_value",
            8,
            &["never event streams"],
        ),
        (
            format!("{route}rewrite_pattern = '/a/(.*)'\nrewrite_to = \"/b/../{{1}}\"\n"),
            "fault",
            "bad_value",
            7,
            &["canonical spelling", "/v2/{1}"],
        ),
        (
            format!("{route}rewrite_pattern = '/a/(.*'\nrewrite_to = \"/b\"\n"),
            "fault",
            "bad_value",
            6,
            &["unclosed group"],
        ),
        (
            format!("{route}split = [{{ upstream = \"echo\", percent = 5 }}]\n"),
            "fault",
            "same_name",
            6,
            &["one share for each upstream"],
        ),
        (
            format!("{route}split = [{{ upstream = \"other\", percent = 5 }}]\n"),
            "fault",
            "unknown_name",
            6,
            &["echo"],
        ),
        (
            format!("{route}access = \"public\"\nsplit = [{{ upstream = \"echo\", roles = [\"beta\"] }}]\n"),
            "fault",
            "impossible_rule",
            7,
            &["has no caller"],
        ),
        (format!("{route}mirror = \"echo\"\n"), "fault", "bad_value", 6, &["gets the requests themselves"]),
        (format!("{route}mirror_percent = 5\n"), "fault", "impossible_rule", 6, &["mirror = \"NAME\""]),
        (format!("{route}add_prefix = \"/v2;a=1\"\n"), "fault", "bad_prefix", 6, &["/v2"]),
        (
            format!("{route}rewrite_host = \"http://app.test\"\n"),
            "fault",
            "bad_host",
            6,
            &["orders.internal"],
        ),
        (
            format!("{route}set_request_headers = {{ \"X-Auth-Subject\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"x_auth_roles\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"X-Forwarded-For\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"X-Real-IP\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"Transfer-Encoding\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"Host\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}add_request_headers = {{ \"Authorization\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}add_request_headers = {{ \"Cookie\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_request_headers = {{ \"tracestate\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_response_headers = {{ \"Set-Cookie\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}add_response_headers = {{ \"Connection\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_response_headers = {{ \"Content-Length\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_response_headers = {{ \"X-Request-Id\" = \"1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}remove_request_headers = [\"X-Auth-Subject\"]\n"),
            "fault",
            "bad_header",
            6,
            &["the gateway decides about"],
        ),
        (
            format!("{route}set_response_headers = {{ \"Access-Control-Allow-Origin\" = \"*\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["use [cors.NAME]"],
        ),
        (
            format!("{route}set_response_headers = {{ \"Strict-Transport-Security\" = \"max-age=1\" }}\n"),
            "fault",
            "bad_header",
            6,
            &["use [tls] hsts"],
        ),
        (format!("[tls]\nhsts = \"includeSubDomains\"\n{route}"), "fault", "bad_value", 2, &["max-age"]),
        (
            format!("[tls]\nhsts = \"max-age=31536000, includeSubDomains\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["max-age"],
        ),
        (format!("[tls]\nhsts = \"max-age=1y\"\n{route}"), "fault", "bad_value", 2, &["max-age"]),
        (format!("[tls]\nhsts = \"max-age\"\n{route}"), "fault", "bad_value", 2, &["max-age"]),
        (format!("[tls]\nhsts = \"max-age=1; max-age=2\"\n{route}"), "fault", "bad_value", 2, &["twice"]),
        (
            format!("[tls]\nhsts = \"max-age=300; include SubDomains\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["directive"],
        ),
        (
            format!("{route}set_request_headers = {{ \"X-Env\" = \"a\\nb\" }}\n"),
            "fault",
            "bad_value",
            6,
            &["visible ASCII"],
        ),
        (
            format!("{route}set_request_headers = {{ \"X-Env\" = \"a\", x_env = \"b\" }}\n"),
            "fault",
            "same_header",
            6,
            &["use each name once"],
        ),
        (
            format!("{route}rule = [\"stff\"]\n[rule.staff]\nroles = \"x\"\n"),
            "fault",
            "unknown_name",
            6,
            &["rule", "staff"],
        ),
        (
            format!("{}{ECHO}{ROUTE}issuers = [\"https://id.example.com\"]\n", issuer("")),
            "fault",
            "unknown_name",
            11,
            &["issuer", "the nearest is \"https://id.example.com/\""],
        ),
        (
            format!("{}{ECHO}{ROUTE}all_roles = [\"a\"]\nnot_roles = [\"a\"]\n", issuer("")),
            "fault",
            "impossible_rule",
            8,
            &["both required and excluded"],
        ),
        (
            format!(
                "{}{ECHO}{ROUTE}rule = \"own\"\nsources = [\"cookie\"]\n[rule.own]\nrequire_bound = true\n",
                issuer("")
            ),
            "fault",
            "impossible_rule",
            11,
            &["rule \"own\": require_bound on a route that does not read Authorization"],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = \"{{host:*}}\" }}\n", issuer("")),
            "fault",
            "unknown_name",
            11,
            &["the route's host has no *"],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = \"{{host:label}}\" }}\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["{host:*}, {host:name} or {header:NAME}"],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = \"{{header:X-Auth-Tenant}}\" }}\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["removes or rewrites \"x-auth-tenant\""],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = \"{{header:X-Forwarded-Host}}\" }}\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["removes or rewrites"],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = [\"{{host:name}}\"] }}\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["in a list", "a placeholder is a value of its own"],
        ),
        (
            format!("{}{ECHO}{ROUTE}claims = {{ t = [] }}\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["which no claim equals"],
        ),
        (
            format!("{route}rate_limits = \"a\"\n[rate_limit.a]\nrate = \"1/s\"\nexact = true\n"),
            "fault",
            "bad_value",
            9,
            &["there is no [shared]"],
        ),
        (
            format!("{route}rate_limits = \"a\"\n[rate_limit.a]\nrate = \"1/s\"\nshared = true\n"),
            "fault",
            "bad_value",
            9,
            &["there is no [shared]"],
        ),
        (
            format!(
                "[shared]\nurl = \"unix:/r\"\n{route}rate_limits = \"a\"\n[rate_limit.a]\nrate = \"1/s\"\nshared = false\nexact = true\n"
            ),
            "fault",
            "bad_value",
            12,
            &["shared is false"],
        ),
        (
            format!(
                "{route}rate_limits = \"a\"\n[rate_limit.a]\nrate = \"1/s\"\nrates = {{ x = \"2/s\" }}\n"
            ),
            "fault",
            "missing_key",
            7,
            &["rate_claim"],
        ),
        (
            format!(
                "{route}rate_limits = \"a\"\n[rate_limit.a]\nrate = \"1/s\"\nrate_claim = \"p\"\nrates = {{ x = \"2/s\" }}\n"
            ),
            "fault",
            "bad_value",
            9,
            &["by is \"client_ip\""],
        ),
        (
            format!("[route]\npath = \"/\"\n{ECHO}"),
            "fault",
            "bad_type",
            1,
            &["[route] is one table", "write [[route]]"],
        ),
        (format!("[issuer]\n{route}"), "fault", "bad_type", 1, &["write [[issuer]]"]),
        (
            format!("[[upstream.api]]\nbuiltin = \"echo\"\n{route}"),
            "fault",
            "bad_type",
            1,
            &["write [upstream.api]"],
        ),
        (format!("[[server]]\n{route}"), "fault", "bad_type", 1, &["write [server]"]),
        // Keys.
        (format!("[[issuer]]\naud = \"a\"\n{route}"), "fault", "unknown_key", 2, &["\"audience\""]),
        (
            format!("{ECHO}{ROUTE}rate = \"1/s\"\n"),
            "fault",
            "unknown_key",
            6,
            &["\"rate_limits\"", "and [rate_limit.NAME]"],
        ),
        (
            format!("[server.bounds]\ntrusted_proxies = []\n{route}"),
            "fault",
            "unknown_key",
            2,
            &["a key of [server]"],
        ),
        (format!("[server]\ncookies = true\n{route}"), "fault", "unknown_key", 2, &["a key of [authority]"]),
        // TOML syntax.
        (
            format!("[server]\nhttps = \"127.0.0.1:1\nhttp = \"\"\n{route}"),
            "fault",
            "bad_toml",
            2,
            &["closing quote"],
        ),
        (format!("[[route]]\nmethods = [\"GET\" \"PUT\"]\n{ECHO}"), "fault", "bad_toml", 2, &["a comma"]),
        (
            format!("[server]\nhttp = \"\"\nadmin = \"\"\nhttp = \"\"\n{route}"),
            "fault",
            "bad_toml",
            4,
            &["the first is on line 2"],
        ),
        // Values.
        (
            format!("[server]\ndrain = \"1.5s\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["a fraction", "\"1500ms\""],
        ),
        (
            format!("[server]\ndrain = \"30 s\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["white space", "\"30s\""],
        ),
        (
            format!("[server.bounds]\nbody_size = \"1.5MiB\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["\"1536KiB\""],
        ),
        (
            format!("[rate_limit.a]\nrate = \"10 / s\"\n{route}"),
            "fault",
            "bad_value",
            2,
            &["white space", "\"10/s\""],
        ),
        (
            format!("[server]\nhttp = \"127.0.0.1:9443\"\nhttps = \"127.0.0.1:9443\"\n{route}"),
            "fault",
            "same_address",
            2,
            &["127.0.0.1:9443", "server.https"],
        ),
        (
            format!("[server]\nadmin = \"127.0.0.1:8443\"\n{route}"),
            "fault",
            "same_address",
            2,
            &["127.0.0.1:8443"],
        ),
        // Empty lists restrict nothing.
        (
            format!("{}{ECHO}{ROUTE}roles = []\n", issuer("")),
            "warning",
            "empty_list",
            11,
            &["requires no role"],
        ),
        (
            format!("{}{ECHO}{ROUTE}methods = []\n", issuer("")),
            "warning",
            "empty_list",
            11,
            &["every method"],
        ),
        (format!("{}{ECHO}{ROUTE}roles = true\n", issuer("")), "fault", "bad_type", 11, &["true", "text"]),
        (
            format!("{}{ECHO}{ROUTE}roles = [\"a\", false]\n", issuer("")),
            "fault",
            "bad_type",
            11,
            &["false", "text"],
        ),
        (
            format!("{}{ECHO}{ROUTE}methods = [\"GTE\"]\n", issuer("")),
            "warning",
            "unknown_method",
            11,
            &["\"GTE\"", "\"GET\""],
        ),
        (
            format!("{}{ECHO}[[route]]\npath = \"/items/:id\"\nupstream = \"echo\"\n", issuer("")),
            "warning",
            "colon_parameter",
            9,
            &["`:id`", "`{id}`"],
        ),
        // One name that looks like several.
        (
            format!("{}{ECHO}{ROUTE}roles = \"a\"\nnot_roles = \"suspended, left\"\n", issuer("")),
            "warning",
            "joined_names",
            12,
            &["\"suspended, left\" is one name", "[\"suspended\", \"left\"]"],
        ),
        (
            format!("{}{ECHO}{ROUTE}methods = \"GET, POST\"\n", issuer("")),
            "fault",
            "bad_method",
            11,
            &["`GET, POST`", "[\"GET\", \"POST\"]"],
        ),
        // Two routes with one path, or one name.
        (
            format!("{}{ECHO}{ROUTE}{}", issuer(""), ROUTE.replace("/x", "/{a}").repeat(2)),
            "fault",
            "same_route",
            15,
            &["the other is at gateway.toml:11:"],
        ),
        (
            format!("{}{ECHO}{ROUTE}name = \"a\"\n{}name = \"a\"\n", issuer(""), ROUTE.replace("/x", "/y")),
            "fault",
            "same_name",
            15,
            &["the route at gateway.toml:8:"],
        ),
        // Origins as an address bar shows them.
        (
            format!(
                "[cors.app]\norigins = [\"https://App.example.com/\"]\n{}{route}cors = \"app\"\n",
                issuer("")
            ),
            "fault",
            "bad_value",
            2,
            &["write \"https://app.example.com\""],
        ),
        // Invisible white space.
        (
            format!("{}{route}", issuer("").replace(".com/", ".com/ ")),
            "warning",
            "white_space",
            2,
            &["https://id.example.com/ ", "\"https://id.example.com/\""],
        ),
        (
            format!("{}{route}", issuer("").replace("\"a\"", "\" a\"")),
            "warning",
            "white_space",
            3,
            &["\" a\"", "\"a\""],
        ),
        (
            format!("{}{ECHO}{ROUTE}roles = [\"admin \"]\n", issuer("")),
            "warning",
            "white_space",
            11,
            &["\"admin\""],
        ),
        // Header names.
        (
            format!("[identity]\nsubject = \"X-U\"\nroles = \"X_U\"\n{}{route}", issuer("")),
            "fault",
            "same_header",
            3,
            &["X_U", "x-u"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [\"api_key\"]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["[api_keys]"],
        ),
        (
            format!("[api_keys]\nheader = \"Authorization\"\n{}{route}", issuer("")),
            "fault",
            "bad_header",
            2,
            &["Authorization"],
        ),
        (
            format!(
                "[api_keys]\nheader = \"X-K\"\n{}{ECHO}{ROUTE}sources = [\"api_key\", {{ header = \"X-K\" }}]\n",
                issuer("")
            ),
            "fault",
            "bad_value",
            13,
            &["twice"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"Authorization\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["prefix = "],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"Cookie\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["CF_Authorization"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"Sec-WebSocket-Protocol\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["websocket"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"X-T\", prefix = \"Token\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["letter or digit"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"X-T\", prefix = \" a:\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["begins with a space"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"X-T\", prefix = \"é:\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["visible ASCII"],
        ),
        (
            format!(
                "{}{ECHO}{ROUTE}sources = [{{ header = \"Authorization\", prefix = \"bearer \" }}]\n",
                issuer("")
            ),
            "fault",
            "bad_value",
            11,
            &["header"],
        ),
        (
            format!(
                "{}{ECHO}{ROUTE}sources = [{{ header = \"Authorization\", prefix = \"a:\" }}]\n",
                issuer("")
            ),
            "fault",
            "bad_value",
            11,
            &["scheme"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ cookie = \"a b\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["cookie name"],
        ),
        (
            format!(
                "{}[upstream.echo]\nservers = [\"http://127.0.0.1:9\"]\nprotocol = \"http2\"\n[upstream.echo.health]\npath = \"/h\"\ncheck = \"tcp\"\n{ROUTE}",
                issuer("")
            ),
            "fault",
            "bad_upstream",
            10,
            &["tcp"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ websocket = \"a,b\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["subprotocol"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ cookie = \"a\" }}, {{ cookie = \"a\" }}]\n", issuer("")),
            "fault",
            "bad_value",
            11,
            &["twice"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"Host\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["Host"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"Content-Length\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["Content-Length"],
        ),
        (
            format!("{}{ECHO}{ROUTE}sources = [{{ header = \"connection\" }}]\n", issuer("")),
            "fault",
            "bad_header",
            11,
            &["connection"],
        ),
        // Several issuers.
        (
            format!("{}{}{ECHO}{ROUTE}roles = [\"admin\"]\n", issuer(""), issuer("").replace("id.", "id2.")),
            "warning",
            "shared_roles",
            16,
            &["2 issuers", "iss"],
        ),
        (
            format!("[identity]\nissuer = \"\"\n{}{}{route}", issuer(""), issuer("").replace("id.", "id2.")),
            "warning",
            "issuer_not_forwarded",
            2,
            &["2 issuers"],
        ),
    ] {
        let found = checked(&in_dir(&text));
        has(&found, severity, id, line, words);
    }
}

#[test]
fn correct_keys_beside_a_mistake_are_not_reported() {
    let two = format!("{}{}", issuer(""), issuer("").replace("id.", "id2."));
    for (text, id) in [
        (format!("{}{ECHO}{ROUTE}roles = [\"a\"]\n", issuer("")), "empty_list"),
        (format!("{}{ECHO}{ROUTE}", issuer("")), "empty_list"),
        (format!("{}{ECHO}{ROUTE}methods = [\"PROPFIND\", \"PURGE\"]\n", issuer("")), "unknown_method"),
        (format!("{}{ECHO}{ROUTE}roles = [\"shop admin\"]\n", issuer("")), "white_space"),
        (format!("{}{ECHO}{ROUTE}roles = [\"CN=a,OU=b\", \"a b\"]\n", issuer("")), "joined_names"),
        (
            format!("{}{ECHO}[[route]]\npath = \"/v1/things:batch\"\nupstream = \"echo\"\n", issuer("")),
            "colon_parameter",
        ),
        (
            format!("[server]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n{}{ECHO}{ROUTE}", issuer("")),
            "same_address",
        ),
        (
            format!("{two}{ECHO}{ROUTE}roles = [\"a\"]\nclaims = {{ iss = \"https://id.example.com/\" }}\n"),
            "shared_roles",
        ),
        (format!("{two}{ECHO}{ROUTE}"), "issuer_not_forwarded"),
        (
            format!("{}[upstream.a]\nservers = [\"http://127.0.0.1:1/\"]\n{ECHO}{ROUTE}", issuer("")),
            "bad_server",
        ),
    ] {
        let found = checked(&in_dir(&text));
        assert!(!found.iter().any(|one| one["id"] == id), "{id}: {found:#?}");
        assert!(!found.iter().any(|one| one["severity"] == "fault"), "{id}: {found:#?}");
    }
}

#[test]
fn a_secret_with_white_space_at_an_end_is_reported_and_one_newline_is_not() {
    let policy = format!("{}{ECHO}{ROUTE}", issuer(""));
    for (secret, is_reported) in [
        (SECRET.to_owned(), false),
        (format!("{SECRET}\n"), false),
        (format!("{SECRET}\r\n"), false),
        (format!("{SECRET}\n\n"), true),
        (format!("{SECRET} \n"), true),
        (format!(" {SECRET}"), true),
    ] {
        let dir = in_dir(&policy);
        dir.write("secret", &secret);
        let checked = command(&dir, &["check", "--format", "json"]);
        let found = findings(&checked);
        let reported = found.iter().filter(|one| one["id"] == "white_space").collect::<Vec<_>>();
        assert_eq!(!reported.is_empty(), is_reported, "{secret:?}: {found:#?}");
        assert!(reported.iter().all(|one| one["place"]["line"] == 5), "{found:#?}");
        assert!(!checked.text().contains(SECRET), "the secret is not shown");
    }
}

/// The same rule applies to every file that contains a secret (CWE-732, ASVS 13.3.2).
#[test]
fn a_secret_file_that_others_may_read_or_change_is_reported() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let text = format!("[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n{}{ECHO}{ROUTE}", issuer(""));
    let dir = in_dir(&text);
    dir.write("c.pem", certificate.pem());
    dir.write("k.pem", key.serialize_pem());
    dir.set_mode("c.pem", 0o644);
    for (file, line) in [("secret", 8), ("k.pem", 3)] {
        for (mode, reported) in [
            (0o600, None),
            (0o640, None),
            (0o400, None),
            (0o644, Some(("warning", "secret_readable"))),
            (0o660, Some(("fault", "secret_writable"))),
            (0o666, Some(("fault", "secret_writable"))),
        ] {
            dir.set_mode(file, mode);
            let found = checked(&dir);
            match reported {
                Some((severity, id)) => {
                    has(&found, severity, id, line, &[file, &format!("{mode:o}"), "chmod 600"])
                }
                None => {
                    let of_mode = |one: &&Value| one["id"].as_str().unwrap().starts_with("secret_");
                    assert_eq!(found.iter().find(of_mode), None, "{file} {mode:o}");
                }
            }
        }
        dir.set_mode(file, 0o600);
    }
    // A key that the gateway generated itself.
    let dir = in_dir(&format!("[state]\ndir = \"state\"\n{}{ECHO}{ROUTE}", issuer("")));
    std::fs::create_dir(dir.path().join("state")).unwrap();
    dir.write("state/certificate-key.pem", key.serialize_pem());
    dir.set_mode("state/certificate-key.pem", 0o644);
    has(&checked(&dir), "warning", "secret_readable", 2, &["certificate-key.pem"]);
}

#[test]
fn a_state_folder_that_others_may_write_to_or_its_owner_may_not_is_reported() {
    let authority = "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"a\"]\n";
    let dir = in_dir(&format!("[state]\ndir = \"state\"\n{authority}{ECHO}{ROUTE}"));
    std::fs::create_dir(dir.path().join("state")).unwrap();
    for (mode, reported) in [
        (0o700, None),
        (0o750, None),
        (0o770, Some(("fault", "no_signing_key", "chmod 700"))),
        (0o777, Some(("fault", "no_signing_key", "chmod 700"))),
        (0o500, Some(("warning", "state_not_writable", "not writable"))),
    ] {
        dir.set_mode("state", mode);
        let found = checked(&dir);
        match reported {
            Some((severity, id, word)) => has(&found, severity, id, 2, &["state", word, "chown"]),
            None => assert!(
                !found.iter().any(
                    |one| ["no_signing_key", "state_not_writable"].contains(&one["id"].as_str().unwrap())
                ),
                "{mode:o}: {found:#?}"
            ),
        }
    }
    dir.set_mode("state", 0o700);
}

/// Creates a certificate for these names and its key. It is valid from the start of year `from` to the start of year
/// `to`.
fn pair(names: &[&str], from: i32, to: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = rcgen::CertificateParams::new(names).unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

const TLS: &str = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";

fn certified(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>, rest: &str) -> Dir {
    let dir = in_dir(&format!("{TLS}{}{ECHO}{rest}", issuer("")));
    dir.write("cert.pem", certificate);
    dir.write("key.pem", key);
    dir
}

#[test]
fn a_certificate_that_clients_will_refuse_is_a_finding() {
    let authority = "[authority]\nissuer = \"https://id.test:8443\"\naudience = [\"a\"]\n";
    let hosts = "[[route]]\nhost = \"api.test\"\npath = \"/\"\nupstream = \"echo\"\n[[route]]\nhost = \"*.shop.test\"\npath = \"/\"\nupstream = \"echo\"\n";
    let rest = format!("{ROUTE}{hosts}{authority}");
    let all = ["id.test", "api.test", "*.shop.test"];
    for (names, from, to, reported) in [
        (&all[..], 2000, 2046, None),
        (&all, 2000, 2020, Some(("certificate_expired", &["expired on 2020-01-01T00:00:00Z"][..]))),
        (&all, 2046, 2047, Some(("certificate_not_yet_valid", &["before 2046-01-01T00:00:00Z"]))),
        (
            &["api.test", "*.shop.test"],
            2000,
            2046,
            Some((
                "certificate_name",
                &["valid for api.test, *.shop.test", "\"id.test\" of authority.issuer"],
            )),
        ),
        (
            &["id.test", "x.test"],
            2000,
            2046,
            Some((
                "certificate_name",
                &["\"*.shop.test\" of route[2].host", "\"api.test\" of route[1].host"],
            )),
        ),
    ] {
        let (certificate, key) = pair(names, from, to);
        let found = checked(&certified(certificate, key, &rest));
        match reported {
            Some((id, words)) => has(&found, "warning", id, 2, words),
            None => assert!(
                !found.iter().any(|one| one["id"].as_str().unwrap().starts_with("certificate_")),
                "{found:#?}"
            ),
        }
    }
}

#[test]
fn a_file_without_a_certificate_or_key_is_reported_by_its_content() {
    let (certificate, key) = pair(&["localhost"], 2000, 2046);
    let (_, other) = pair(&["localhost"], 2000, 2046);
    let der = |pem: &str| rcgen_der(pem);
    let block =
        |name: &str, head: &str| format!("-----BEGIN {name}-----\n{head}TUlJ\n-----END {name}-----\n");
    let encrypted = block("ENCRYPTED PRIVATE KEY", "");
    let sec1 = block("EC PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n");
    for (chain, own, line, words) in [
        (
            certificate.clone().into_bytes(),
            other.into_bytes(),
            3,
            &["not the key of the certificate", "openssl pkey -pubout"][..],
        ),
        (key.clone().into_bytes(), certificate.clone().into_bytes(), 2, &["holds a private key"]),
        (
            certificate.clone().into_bytes(),
            certificate.clone().into_bytes(),
            3,
            &["holds a certificate and no private key"],
        ),
        (der(&certificate), key.clone().into_bytes(), 2, &["is DER", "openssl x509 -inform der -in"]),
        (certificate.clone().into_bytes(), der(&key), 3, &["is DER", "openssl pkey -inform der -in"]),
        (certificate.clone().into_bytes(), encrypted.into_bytes(), 3, &["is encrypted", "openssl pkey -in"]),
        (certificate.clone().into_bytes(), sec1.into_bytes(), 3, &["is encrypted", "openssl pkey -in"]),
        (certificate.clone().into_bytes(), Vec::new(), 3, &["is empty"]),
        (Vec::new(), key.clone().into_bytes(), 2, &["is empty"]),
        (
            block("CERTIFICATE REQUEST", "").into_bytes(),
            key.clone().into_bytes(),
            2,
            &["certificate request"],
        ),
        (certificate.clone().into_bytes(), block("OPENSSH PRIVATE KEY", "").into_bytes(), 3, &["ssh-keygen"]),
    ] {
        let found = checked(&certified(chain, own, ROUTE));
        has(&found, "fault", "bad_certificate", line, words);
    }
    let dir = certified(&certificate, &key, ROUTE);
    std::fs::remove_file(dir.path().join("key.pem")).unwrap();
    has(&checked(&dir), "fault", "bad_certificate", 3, &["key.pem", "No such file"]);
    // `openssl x509 -req` without extensions makes a certificate of version 1.
    let old = crate::kit::pki::Authority::new("old").issue(&["a.test"]).of_version_1();
    let found = checked(&certified(&old.pem, &old.key, ROUTE));
    has(&found, "fault", "bad_certificate", 2, &["version 1", "version 3", "-extfile"]);
    // The certificates of the chain are in the wrong order.
    let (authority, _) = pair(&["ca.test"], 2000, 2046);
    let found = checked(&certified(format!("{authority}{certificate}"), &key, ROUTE));
    has(&found, "fault", "bad_certificate", 2, &["number 2", "first"]);
}

/// Returns the content of the first block of a PEM file.
fn rcgen_der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    match CertificateDer::from_pem_slice(pem.as_bytes()) {
        Ok(certificate) => certificate.to_vec(),
        Err(_) => PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec(),
    }
}

#[test]
fn a_reload_never_replaces_a_valid_certificate_by_one_that_clients_refuse() {
    let upstream = Upstream::start();
    let (certificate, key) = pair(&["localhost"], 2000, 2046);
    let gateway =
        Portcullis::with(&format!("[server]\nhttps = \"127.0.0.1:0\"\n{TLS}{}", policy(&upstream, PUBLIC)))
            .file("cert.pem", certificate)
            .file("key.pem", key)
            .start();
    for (from, to, id) in [(2000, 2020, "certificate_expired"), (2046, 2047, "certificate_not_yet_valid")] {
        let (certificate, key) = pair(&["localhost"], from, to);
        gateway.dir().replace("key.pem", key);
        gateway.dir().replace("cert.pem", certificate);
        let answer = reload(&gateway);
        assert_eq!(answer.status, 422, "{answer:?}");
        let report = answer.json();
        let found = report["diagnostics"].as_array().unwrap();
        let line = found[0]["place"]["line"].as_u64().unwrap();
        let text = std::fs::read_to_string(gateway.dir().path().join("gateway.toml")).unwrap();
        assert!(
            text.lines().nth(usize::try_from(line).unwrap() - 1).unwrap().starts_with("certificate"),
            "{report:#}"
        );
        assert_eq!((&found[0]["id"], &found[0]["severity"]), (&id.into(), &"fault".into()), "{report:#}");
        // The watcher refuses the certificate as well.
        eventually("the watcher says why", || {
            gateway.log_text().contains(if to == 2020 {
                "expired on 2020"
            } else {
                "is not valid before 2046"
            })
        });
    }
    assert!(!gateway.log_text().contains("the certificate was replaced"));
    let (certificate, key) = pair(&["localhost"], 2000, 2047);
    gateway.dir().replace("key.pem", key);
    gateway.dir().replace("cert.pem", certificate);
    reload(&gateway).is(200);
}

#[test]
fn a_listener_that_cannot_bind_is_logged_in_the_format_of_the_log_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = Dir::new();
    write_policy(
        &dir,
        &format!(
            "[log]\nformat = \"json\"\n[server]\nhttp = \"127.0.0.1:{port}\"\n{ECHO}{ROUTE}access = \"public\"\n"
        ),
    );
    let run = command(&dir, &["run"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let lines: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON alone")).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["message"]), (&"error".into(), &"cannot start".into()), "{run:?}");
    let why = last["why"].as_str().unwrap();
    assert!(
        why.contains("[server] http: cannot listen on") && why.contains(&format!("sport = :{port}")),
        "{why}"
    );
    // The network 192.0.2.0/24 is reserved (RFC 5737), so the address is not this machine's.
    dir.write("gateway.toml", completed(&format!("[log]\nformat = \"human\"\n[server]\nhttp = \"192.0.2.1:8080\"\n{ECHO}{ROUTE}access = \"public\"\n")));
    let run = command(&dir, &["run"]);
    assert!(run.code == Some(1) && run.stderr.contains("does not have that address"), "{run:?}");
}

#[test]
fn a_guard_by_host_that_another_host_walks_around_is_a_finding() {
    let routes = |weaker: &str| {
        format!(
            "{}{ECHO}[upstream.site]\nbuiltin = \"echo\"\n[[route]]\nname = \"report\"\nhost = \"internal.example.com\"\npath = \"/report\"\nupstream = \"echo\"\nroles = [\"staff\"]\n{weaker}",
            issuer("")
        )
    };
    let public = |rest: &str| {
        format!("[[route]]\nname = \"open\"\npath = \"/{{*rest}}\"\naccess = \"public\"\n{rest}\n")
    };
    for (weaker, is_reported) in [
        (public("upstream = \"echo\""), true),
        (public("upstream = \"echo\"\nhost = \"*.example.com\""), true),
        (public("upstream = \"site\""), false),
        (public("upstream = \"echo\"\nhost = \"www.example.com\""), false),
        ("[[route]]\npath = \"/{*rest}\"\nupstream = \"echo\"\nroles = [\"staff\"]\n".to_owned(), false),
        ("[[route]]\npath = \"/other\"\nupstream = \"echo\"\naccess = \"public\"\n".to_owned(), false),
    ] {
        let dir = in_dir(&routes(&weaker));
        let found = checked(&dir);
        if is_reported {
            has(&found, "warning", "open_by_another_host", 13, &["another.", "/report", "route \"open\""]);
        } else {
            assert!(!found.iter().any(|one| one["id"] == "open_by_another_host"), "{weaker}: {found:#?}");
        }
        let strict = command(&dir, &["check", "--strict"]);
        assert_eq!(strict.code, Some(1), "there is no test: {strict:?}");
    }
}

#[test]
fn the_program_explains_its_findings_itself() {
    let dir = Dir::new();
    let help = command(&dir, &["help", "open_by_another_host"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(
        help.stdout.starts_with("open_by_another_host (weakness)\n") && help.stdout.contains("*Do:*"),
        "{help:?}"
    );
    let all = command(&dir, &["help", "findings"]);
    assert!(all.code == Some(0) && all.stdout.contains("\n  bad_toml\n"), "{all:?}");
    let near = command(&dir, &["help", "open_by_anoter_host"]);
    assert!(near.code == Some(2) && near.stderr.contains("did you mean open_by_another_host?"), "{near:?}");
    // The codes of refusals, too.
    let refusal = command(&dir, &["help", "insufficient_role"]);
    assert_eq!(refusal.code, Some(0), "{refusal:?}");
    assert!(refusal.stdout.starts_with("insufficient_role (403 Forbidden)\n\n"), "{refusal:?}");
    assert!(refusal.stdout.contains("*Cure:*") && !refusal.stdout.contains("###"), "{refusal:?}");
    let json = command(&dir, &["help", "maintenance", "--format", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["id"], &json["kind"], &json["status"]),
        (&"maintenance".into(), &"refusal".into(), &503.into())
    );
    let all = command(&dir, &["help", "refusals"]);
    assert!(all.code == Some(0) && all.stdout.contains("\n  401 expired_token\n"), "{all:?}");
    let near = command(&dir, &["help", "insuficient_role"]);
    assert!(near.code == Some(2) && near.stderr.contains("did you mean insufficient_role?"), "{near:?}");
    // Each finding names the command that explains it.
    dir.write("gateway.toml", "[server]\nhtps = \"\"\n");
    let check = command(&dir, &["check"]);
    let line = check.stdout.lines().find(|line| line.contains("htps")).unwrap();
    assert!(line.starts_with("gateway.toml:2:1: fault: server.htps: unknown key; help: "), "{line}");
    assert!(line.ends_with("[portcullis help unknown_key]"), "{line}");
}

#[test]
fn the_help_of_a_command_lists_the_formats_that_it_has() {
    let dir = Dir::new();
    for (arguments, has, has_not) in [
        (&["check", "--help"][..], "text, json, junit, tap", "csv"),
        (&["routes", "--help"], "text, json, csv, markdown", "junit"),
        (&["token", "mint", "--help"], "text, json", "junit"),
        (&["init", "--help"], "text, json", "markdown"),
    ] {
        let help = command(&dir, arguments);
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.stdout.contains(has) && !help.stdout.contains(has_not), "{arguments:?}: {help:?}");
    }
    let wrong = command(&dir, &["init", "--format", "junit"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[test]
fn the_last_line_counts_the_endpoints_of_the_gateway_apart() {
    let dir = in_dir(&format!(
        "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"a\"]\n{ECHO}{ROUTE}"
    ));
    let check = command_in(&dir, &["check"], &[]);
    let last = check.stdout.lines().last().unwrap();
    assert!(last.contains("good: 1 route and ") && last.contains(" of the gateway, "), "{last}");
    let dir = in_dir(&format!("{}{ECHO}{ROUTE}", issuer("")));
    let check = command(&dir, &["check"]);
    assert!(check.stdout.lines().last().unwrap().contains("good: 1 route, "), "{check:?}");
}

/// The most common layout passes `check` without a waiver, because the gateway itself refuses the odd
/// spellings.
#[test]
fn the_commonest_layout_is_good_and_its_odd_spellings_are_refused() {
    let routes = r#"
[[route]]
name = "site"
path = "/{*rest}"
upstream = "app"
access = "public"
waive = { open_by_default = "the site is public" }

[[route]]
name = "api"
path = "/api/{*rest}"
upstream = "app"

[[route]]
name = "delete order"
path = "/api/orders/{id}"
methods = ["DELETE"]
upstream = "app"
roles = ["admin"]

[[route]]
name = "order"
path = "/api/orders/{id}"
methods = ["GET", "PUT"]
upstream = "app"
"#;
    let upstream = Upstream::start();
    let dir = Dir::new();
    write_policy(&dir, &policy(&upstream, routes));
    let report = command(&dir, &["check", "--format", "json"]);
    assert_eq!(report.code, Some(0), "{report:?}");
    let found = findings(&report);
    assert!(!found.iter().any(|one| one["id"].as_str().unwrap().starts_with("spelling_")), "{found:#?}");
    // The warning names the paths that are still refused. Without such paths, there is no warning.
    let shadowed = |found: &[Value]| -> Vec<String> {
        let of = found.iter().filter(|one| one["id"] == "shadowed_route");
        of.map(|one| one["found"].as_str().unwrap().to_owned()).collect()
    };
    let reported = shadowed(&found);
    assert!(
        !reported.is_empty()
            && reported.iter().all(|found| found.contains(": POST, PATCH, OPTIONS are refused there")),
        "{reported:?}"
    );
    let all = routes.replace("\"GET\", \"PUT\"", "\"GET\", \"PUT\", \"POST\", \"PATCH\", \"OPTIONS\"");
    write_policy(&dir, &policy(&upstream, &all));
    assert_eq!(shadowed(&checked(&dir)), [""; 0]);

    let gateway = Portcullis::with(&policy(&upstream, routes)).start();
    let code = |answer: &crate::kit::Answer| answer.json()["code"].as_str().unwrap().to_owned();
    for path in ["/api", "/API", "/api.", "/api%20", "/api./x", "/api%C2%A0/x", "/api::$DATA"] {
        let answer = Request::get(path).to(gateway.http());
        assert_eq!((answer.status, &*code(&answer)), (400, "bad_request"), "{path}");
    }
    let answer = Request::new("DELETE", "/api/orders/7/").to(gateway.http());
    assert_eq!((answer.status, &*code(&answer)), (400, "bad_request"));
    for path in ["/", "/index.html", "/assets/", "/apis", "/a.b/", "/docs"] {
        Request::get(path).to(gateway.http()).is(200);
    }
    for path in ["/api/", "/api/x", "/api/orders/7"] {
        Request::get(path).to(gateway.http()).is(401);
    }
}
