use crate::diagnostic::Diagnostic;
use crate::keyring::MissingKey;
use crate::policy::{Compiled, compile};
use crate::review;
use serde_json::json;

const SECRET: &str = "q7Vd0mY2cXk9Ru4LzTf1HsWb8JnPe5Ga";

/// Returns a policy without findings, with the given replacements and additions.
fn text(replaced: &[(&str, &str)], added: &str) -> String {
    let mut text = format!(
        "[server]\nhttps = \"127.0.0.1:8443\"\nhttp = \"127.0.0.1:8080\"\nadmin = \"127.0.0.1:9900\"\nplain = \"redirect\"\n\
         [tls]\nhsts = \"max-age=31536000\"\n\
         [policy]\nwaive = {{ shared_roles = \"both are trusted\", secret_in_plain_text = \"of this test alone\" }}\n\
         [identity]\nforward_token = false\n\
         [authority]\nissuer = \"https://localhost:8443\"\naudience = [\"a\"]\ncookies = true\nsame_site = \"strict\"\n\
         origins = [\"https://app.example.com\"]\naccess_expires = \"15m\"\nrefresh_grace = \"10s\"\nrate_limits = [\"login\"]\n\
         store = \"sqlite:x.db\"\n\
         [rate_limit.login]\nby = \"client_ip\"\nrate = \"30/m\"\n\
         [[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\nleeway = \"30s\"\n\
         secret = \"{SECRET}\"\n\
         [upstream.app]\nservers = [\"http://127.0.0.1:9001\"]\n\
         [[route]]\nname = \"orders\"\npath = \"/orders/{{id}}\"\nupstream = \"app\"\nroles = [\"clerks\"]\naccess = \"authenticated\"\n\
         [[test]]\nname = \"t\"\nrequest = \"GET https://h/orders/7\"\nexpect = {{ deny = \"missing_token\" }}\n"
    );
    for (old, new) in replaced {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    text + added
}

fn compiled(text: &str) -> Compiled {
    let loaded = crate::config::load_text("gateway.toml", text.to_owned(), ".".into(), Vec::new());
    let loaded = loaded.unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
    let compiled =
        compile(&loaded, MissingKey::Ephemeral).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"));
    review::lint(&loaded, compiled)
}

/// Returns the findings that are not waived, and the unused waivers.
fn left(text: &str) -> Vec<Diagnostic> {
    let compiled = compiled(text);
    let sifted = compiled.waivers.sift(compiled.warnings);
    let unused = compiled.waivers.unused(&sifted);
    [sifted.left, unused].concat()
}

fn found(text: &str) -> Vec<(&'static str, String)> {
    left(text).into_iter().map(|found| (found.id, found.key)).collect()
}

fn route(path: &str, rest: &str) -> String {
    format!(
        "[[route]]\npath = \"{path}\"\nname = \"{path}\"\nupstream = \"app\"\nwaive = {{ no_test = \"not here\" }}\n{rest}\n"
    )
}

#[test]
fn a_careful_policy_has_nothing_to_be_said_of_it() {
    assert_eq!(found(&text(&[], "")), []);
}

#[test]
fn each_weakness_is_reported_at_its_place_and_its_neighbour_is_not() {
    // The cases: text to replace, bad replacement, finding, key, good replacement.
    for (old, bad, id, key, good) in [
        (
            "admin = \"127.0.0.1:9900\"",
            "admin = \"0.0.0.0:9900\"",
            "admin_exposed",
            "server.admin",
            "admin = \"[::1]:9900\"",
        ),
        (
            "127.0.0.1:8080\"\nadmin = \"127.0.0.1:9900\"\nplain = \"redirect\"",
            "0.0.0.0:8080\"\nplain = \"serve\"",
            "cleartext_exposed",
            "server.plain",
            "127.0.0.1:8080\"\nplain = \"serve\"",
        ),
        (
            "https = \"127.0.0.1:8443\"",
            "https = \"0.0.0.0:8443\"",
            "self_signed",
            "server.https",
            "https = \"127.1.2.3:8443\"",
        ),
        ("hsts = \"max-age=31536000\"", "hsts = \"\"", "hsts_off", "tls.hsts", "hsts = \"max-age=60\""),
        (
            "hsts = \"max-age=31536000\"",
            "hsts = \"max-age=0\"",
            "hsts_off",
            "tls.hsts",
            "hsts = \"max-age=1\"",
        ),
        (
            "[identity]",
            "[shared]\nurl = \"redis://198.51.100.7\"\n[identity]",
            "shared_in_cleartext",
            "shared.url",
            "[shared]\nurl = \"redis://10.0.0.7\"\npassword = \"p\"\n[identity]",
        ),
        (
            "[identity]",
            "[shared]\ncluster = [\"redis://localhost\", \"redis://10.0.0.7\"]\n[identity]",
            "shared_without_password",
            "shared.cluster[1]",
            "[shared]\ncluster = [\"redis://localhost\", \"redis://127.0.0.1\"]\n[identity]",
        ),
        (
            "[identity]",
            "[shared]\nurl = \"redis://localhost\"\nreplay = true\n[identity]",
            "nonces_not_shared",
            "dpop.nonce_secret",
            "[shared]\nurl = \"redis://localhost\"\n[identity]",
        ),
        (
            "[identity]",
            "[shared]\nurl = \"redis://localhost\"\n[dpop]\nnonce = \"required\"\n[identity]",
            "nonces_not_shared",
            "dpop.nonce_secret",
            "[dpop]\nnonce = \"required\"\n[identity]",
        ),
        (
            "[identity]",
            "[shared]\nurl = \"redis://localhost\"\n[dpop]\nannounce = true\n[identity]",
            "nonces_not_shared",
            "dpop.nonce_secret",
            "[shared]\nurl = \"redis://localhost\"\n[dpop]\nannounce = true\n\
             nonce_secret = \"k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc\"\n[identity]",
        ),
        (
            "http://127.0.0.1:9001",
            "http://198.51.100.7:9001",
            "upstream_in_cleartext",
            "upstream.app.servers[0]",
            "http://10.0.0.7:9001",
        ),
        (
            "http://127.0.0.1:9001",
            "http://localhost:8080",
            "upstream_is_gateway",
            "upstream.app.servers[0]",
            "http://localhost:8081",
        ),
        (
            "http://127.0.0.1:9001",
            "https://10.0.0.7",
            "address_without_ca",
            "upstream.app.servers[0]",
            "https://app.example.com",
        ),
        (
            "issuer = \"https://id.example.com/\"",
            "issuer = \"http://id.example.com/\"",
            "issuer_in_cleartext",
            "issuer[0].issuer",
            "issuer = \"http://localhost:8180/\"",
        ),
        (
            "[policy]",
            "[policy]\norigins = \"https://spa.example\"",
            "unused",
            "policy.origins",
            "[policy]\norigins = []",
        ),
        (
            "[policy]",
            "[policy]\nsources = [{ cookie = \"X\" }]\norigins = \"http://spa.example\"",
            "origin_in_cleartext",
            "policy.origins[0]",
            "[policy]\nsources = [{ cookie = \"X\" }]\norigins = \"https://spa.example\"",
        ),
        (
            "[policy]",
            "[cors.app]\norigins = \"https://spa.example\"\n[policy]",
            "unused",
            "cors.app",
            "[policy]",
        ),
        ("leeway = \"30s\"", "leeway = \"61s\"", "long_leeway", "issuer[0].leeway", "leeway = \"60s\""),
        (
            SECRET,
            "0123456789abcdef0123456789abcdef",
            "guessable_secret",
            "issuer[0].secret",
            "R3vX8nLq0ZtYb5KcJ6Hd2WmPf9SgAe7u",
        ),
        ("forward_token = false", "forward_token = true", "token_forwarded", "identity.forward_token", ""),
        (
            "roles = [\"clerks\"]",
            "roles = [\"clerks\"]\nforward_token = true",
            "token_forwarded",
            "route[0].forward_token",
            "roles = [\"clerks\"]\nforward_token = false",
        ),
        (
            "refresh_grace = \"10s\"",
            "refresh_grace = \"61s\"",
            "long_grace",
            "authority.refresh_grace",
            "refresh_grace = \"60s\"",
        ),
        (
            "access_expires = \"15m\"",
            "access_expires = \"61m\"",
            "long_access_token",
            "authority.access_expires",
            "access_expires = \"60m\"",
        ),
        ("same_site = \"strict\"", "same_site = \"lax\"", "lax_cookies", "authority.same_site", ""),
        (
            "https://app.example.com",
            "http://app.example.com",
            "origin_in_cleartext",
            "authority.origins[0]",
            "http://localhost:5173",
        ),
        (
            "sqlite:x.db",
            "postgres://u:p@db/portcullis",
            "secret_in_plain_text",
            "authority.store",
            "postgres://u@db/portcullis",
        ),
        (
            "by = \"client_ip\"",
            "by = \"header:X-Api-Key\"",
            "evadable_limit",
            "authority.rate_limits",
            "by = \"route\"",
        ),
        (
            "access = \"authenticated\"",
            "mode = \"shadow\"",
            "shadow_mode",
            "route[0].mode",
            "mode = \"enforce\"",
        ),
        (
            "[policy]",
            "[policy]\nmode = \"shadow\"",
            "shadow_mode",
            "policy.mode",
            "[policy]\nmode = \"enforce\"",
        ),
        ("access = \"authenticated\"", "access = \"optional\"", "optional_with_rule", "route[0].access", ""),
        (
            "https://h/orders/7",
            "https://h/order/7\"\nexpect = { deny = \"no_route\" }\n[[test]]\nname = \"x\"\nrequest = \"GET https://h/",
            "no_test",
            "route[0].name",
            "https://h/orders/x",
        ),
    ] {
        // The base policy waives this finding for its test secret. The waiver is removed here.
        let waiver = ", secret_in_plain_text = \"of this test alone\"";
        let listed = found(&text(&[(old, bad)], "").replace(waiver, ""));
        assert!(listed.contains(&(id, key.to_owned())), "{bad}: {listed:?}");
        let rest: Vec<_> = listed.iter().filter(|(_, at)| at != key && at != "issuer[0].secret").collect();
        assert!(rest.is_empty(), "{bad}: {rest:?}");
        let good = text(&[(old, if good.is_empty() { old } else { good })], "");
        assert_eq!(found(&good), [], "{good}");
    }
}

#[test]
fn a_login_without_a_limit_and_trust_in_everybody_are_reported() {
    let no_limit = text(&[("rate_limits = [\"login\"]\n", "rate_limits = []\n")], "");
    let ids: Vec<_> = found(&no_limit).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["login_unlimited", "unused"]);
    let no_limit =
        text(&[("rate_limits = [\"login\"]\n", "limits = { login = [], token = [\"login\"] }\n")], "");
    assert_eq!(found(&no_limit), [("login_unlimited", "authority.limits.login".to_owned())]);
    // Without `rate_limits`, the default limit applies. The policy may redefine it.
    let default =
        text(&[("rate_limits = [\"login\"]\n", ""), ("[rate_limit.login]", "[rate_limit.auth_login]")], "");
    assert_eq!(found(&default), []);
    let evadable = default.replace("by = \"client_ip\"", "by = \"header:x-client\"");
    assert_eq!(found(&evadable), [("evadable_limit", "rate_limit.auth_login".to_owned())]);
    let everybody =
        |network: &str| text(&[("[tls]", &format!("trusted_proxies = [\"{network}\"]\n[tls]"))], "");
    assert_eq!(found(&everybody("0.0.0.0/0")), [("trusts_everybody", "server.trusted_proxies".to_owned())]);
    assert_eq!(found(&everybody("10.0.0.0/8")), []);
}

#[test]
fn routes_that_undo_each_other_are_reported() {
    let guarded = || route("/a/{*rest}", "");
    for (routes, listed) in [
        (vec![guarded(), route("/a/open", "access = \"public\"")], vec![("public_below_guarded", 2)]),
        (vec![guarded(), route("/b/open", "access = \"public\"")], vec![]),
        (vec![guarded(), route("/a/x", "methods = [\"GET\"]")], vec![("shadowed_route", 1)]),
        (vec![guarded(), route("/a/x", "")], vec![]),
        (vec![route("/{*rest}", "access = \"public\"")], vec![("open_by_default", 1)]),
        (vec![route("/{*rest}", "")], vec![]),
        (
            vec![route("/{*rest}", "host = \"other.example.com\"\naccess = \"public\"")],
            vec![("open_by_default", 1)],
        ),
        (
            vec![guarded(), route("/a/", ""), route("/a/{x}", ""), route("/a/{x}/{*y}", "")],
            vec![("unreachable_route", 1)],
        ),
        (vec![guarded(), route("/a/{x}", ""), route("/a/{x}/{*y}", "")], vec![]),
        (vec![guarded(), route("/b", "roles = [\"clerk\"]")], vec![("nearly_the_same", 0)]),
        (vec![guarded(), route("/b", "roles = [\"Clerks\"]")], vec![("nearly_the_same", 0)]),
        (vec![guarded(), route("/b", "roles = [\"editor\"]")], vec![]),
    ] {
        let text = text(&[], &routes.concat());
        let found: Vec<_> = found(&text)
            .into_iter()
            .map(|(id, key)| (id, key["route[".len()..].split(']').next().unwrap().parse::<usize>().unwrap()))
            .collect();
        assert_eq!(found, listed, "{text}");
    }
}

#[test]
fn every_waived_finding_is_listed() {
    let many: String =
        (0..300).map(|n| format!("[[route]]\npath = \"/n/{n}\"\nupstream = \"app\"\n")).collect();
    assert_eq!(left(&text(&[], &many)).len(), 300);
    let waived = text(&[("waive = {", "waive = { no_test = \"tested elsewhere\",")], &many);
    assert_eq!(found(&waived), []);
    let compiled = compiled(&waived);
    assert_eq!(compiled.waivers.sift(compiled.warnings).waived.len(), 302);
}

#[test]
fn a_start_logs_weaknesses_and_no_advice() {
    let many: String =
        (0..300).map(|n| format!("[[route]]\npath = \"/n/{n}\"\nupstream = \"app\"\n")).collect();
    let weak = compiled(&text(&[("leeway = \"30s\"", "leeway = \"5m\"")], &many)).weaknesses();
    assert_eq!(weak.iter().map(|found| found.id).collect::<Vec<_>>(), ["long_leeway"]);
}

#[test]
fn a_waiver_is_for_its_route_alone_and_needs_a_reason_and_a_finding() {
    let routes = [route("/a/{*rest}", ""), route("/a/open", "access = \"public\"")].concat();
    let reason = "public_below_guarded = \"the load balancer asks\"";
    let with = |waiver: &str| {
        let own = "waive = { no_test = \"not here\"";
        routes.replace(own, &format!("{own}, {waiver}"))
    };
    // The waiver of the wider route matches no finding, so it is reported as unused.
    let unused = found(&text(&[], &with(reason)));
    assert_eq!(unused, [("unused_waiver", "route[1].waive.public_below_guarded".to_owned())]);
    for (waiver, id, found) in [
        ("public_below_guarded = \" \"", "bad_value", "no reason"),
        ("public_below_garded = \"x\"", "unknown_name", "unknown finding"),
        ("no_audience = \"x\"", "unknown_name", "cannot be waived"),
    ] {
        let text = text(&[], &with(waiver));
        let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new()).unwrap();
        let faults = compile(&loaded, MissingKey::Ephemeral).unwrap_err();
        assert!(faults.iter().any(|fault| fault.id == id && fault.found.contains(found)), "{faults:?}");
    }
}

#[test]
fn a_finding_names_the_paragraph_that_explains_it() {
    let listed = left(&text(&[("leeway = \"30s\"", "leeway = \"5m\"")], ""));
    assert!(listed[0].to_string().ends_with("[portcullis help long_leeway]"), "{}", listed[0]);
    assert_eq!(json!(listed[0])["docs"], "docs/findings.md#long_leeway");
}

#[test]
fn a_secret_that_everybody_knows_is_a_fault_wherever_it_is() {
    let known = text(&[(SECRET, "changeme-changeme-changeme-changeme-changeme")], "");
    let loaded = crate::config::load_text("gateway.toml", known, ".".into(), Vec::new()).unwrap();
    let faults = compile(&loaded, MissingKey::Ephemeral).unwrap_err();
    let fault = faults.iter().find(|fault| fault.id == "weak_secret").unwrap();
    assert_eq!(fault.key, "issuer[0].secret");
    assert!(!format!("{faults:?}").contains("changeme"), "{faults:?}");
}

#[test]
fn an_excluded_role_that_may_be_missing_is_reported() {
    let excluding = ("roles = [\"clerks\"]", "roles = [\"clerks\"]\nnot_roles = [\"left\"]");
    let all_roles = ("cookies = true", "cookies = true\nrole_limit = \"all\"");
    assert_eq!(found(&text(&[excluding], "")), [("excluded_role_omitted", "route[0].not_roles".to_owned())]);
    assert_eq!(found(&text(&[excluding, all_roles], "")), []);
    let rule = "[rule.active]\nnot_roles = [\"left\"]\n";
    for (routes, findings) in [
        (route("/n", "not_roles = [\"left\"]"), &[("only_excludes", "route[1].not_roles")][..]),
        (route("/n", "rule = \"active\""), &[("only_excludes", "route[1].rule")]),
        (
            route("/n", "not_roles = [\"left\"]\nissuers = [\"https://id.example.com/\"]"),
            &[("only_excludes", "route[1].not_roles")],
        ),
        (route("/n", "rule = \"active\"\nany_scopes = [\"n\"]"), &[]),
        (route("/n", "rule = \"active\"\nclaims = { plan = [\"gold\"] }"), &[]),
    ] {
        let is_named = routes.contains("rule =");
        let added = if is_named { format!("{rule}{routes}") } else { routes };
        let findings: Vec<_> = findings.iter().map(|(id, key)| (*id, (*key).to_owned())).collect();
        assert_eq!(found(&text(&[all_roles], &added)), findings, "{added}");
    }
    assert_eq!(found(&text(&[all_roles], rule)), [("unused", "rule.active".to_owned())]);
}

#[test]
fn roles_that_any_issuer_could_grant_are_reported_at_their_line() {
    let unwaived = ("shared_roles = \"both are trusted\", ", "");
    let issuers = "issuers = [\"https://id.example.com/\"]";
    let own = ("roles = [\"clerks\"]", "roles = [\"clerks\"]\nissuers = \"https://id.example.com/\"");
    let rule = "[rule.staff]\nroles = [\"clerks\"]\n";
    let shared = |key: &str| vec![("shared_roles", key.to_owned())];
    assert_eq!(found(&text(&[unwaived], "")), shared("route[0].roles"));
    assert_eq!(found(&text(&[unwaived, own], "")), []);
    for (rest, findings) in [
        ("rule = \"staff\"".to_owned(), shared("rule.staff.roles")),
        (format!("rule = \"staff\"\n{issuers}"), Vec::new()),
        ("any_scopes = [\"a\", \"b\"]".to_owned(), shared("route[1].any_scopes")),
        (format!("any_scopes = [\"a\", \"b\"]\n{issuers}"), Vec::new()),
    ] {
        let rule = if rest.contains("rule =") { rule } else { "" };
        assert_eq!(
            found(&text(&[unwaived, own], &format!("{rule}{}", route("/n", &rest)))),
            findings,
            "{rest}"
        );
    }
}

#[test]
fn origins_that_others_can_take_over_are_found() {
    let with = |cors: &str| text(&[("[policy]", &format!("[cors.app]\n{cors}\n[policy]"))], "");
    let found = |cors: &str| {
        let mut ids: Vec<_> = found(&with(cors)).into_iter().map(|(id, _)| id).collect();
        ids.retain(|id| *id != "unused");
        ids
    };
    let none: [&str; 0] = [];
    assert_eq!(found("origins = \"https://*.a.example\"\ncredentials = true"), ["wide_cors"]);
    assert_eq!(found("origins = \"https://*.a.example\""), none);
    assert_eq!(found("origins = \"https://b.a.example\"\ncredentials = true"), none);
    assert_eq!(found("origins = \"*\"\nprivate_network = true"), ["wide_cors"]);
    assert_eq!(found("origins = \"*\""), none);
    assert_eq!(found("origins = \"http://b.a.example\""), ["origin_in_cleartext"]);
}
