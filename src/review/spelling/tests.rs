use super::findings::FINDINGS_MAX;
use super::*;
use crate::diagnostic::{Diagnostic, Severity};
use crate::keyring::MissingKey;
use crate::policy::Compiled;
use proptest::prelude::*;

const HEAD: &str = "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
    secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.app]\nbuiltin = \"echo\"\n[upstream.site]\nbuiltin = \"echo\"\n";

fn findings(routes: &str) -> Vec<Diagnostic> {
    let text = format!("{HEAD}{routes}");
    let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new()).unwrap();
    let compiled = crate::policy::compile(&loaded, MissingKey::Ephemeral).unwrap();
    let compiled = Compiled { warnings: Vec::new(), ..compiled };
    let compiled = crate::review::try_spellings(compiled, Severity::Fault);
    compiled.waivers.sift(compiled.warnings).left
}

fn route(path: &str, rest: &str) -> String {
    let upstream = if rest.contains("upstream") { "" } else { "upstream = \"app\"\n" };
    format!("[[route]]\npath = \"{path}\"\n{upstream}{rest}\n")
}

/// Returns the key and id of each finding.
fn found(routes: &[(&str, &str)]) -> Vec<(String, &'static str)> {
    let text: String = routes.iter().map(|(path, rest)| route(path, rest)).collect();
    findings(&text).into_iter().map(|finding| (finding.key, finding.id)).collect()
}

const PUBLIC: &str = "access = \"public\"";

#[test]
fn a_path_that_the_gateway_refuses_is_no_bypass() {
    // A common policy: a public site, an API for users, and a method of the API for some users.
    let layout = [
        ("/{*rest}", PUBLIC),
        ("/api/{*rest}", "roles = [\"clerk\"]"),
        ("/api/orders/{id}", "roles = [\"admin\"]\nmethods = [\"DELETE\"]"),
    ];
    assert_eq!(found(&layout), []);
    assert_eq!(found(&[("/admin", "roles = [\"admin\"]"), ("/{*rest}", PUBLIC)]), []);
    assert_eq!(found(&[("/admin/{*rest}", "roles = [\"admin\"]"), ("/{page}", PUBLIC)]), []);
}

#[test]
fn a_laxer_route_for_the_other_spelling_is_a_way_around_the_guard() {
    let text = [
        route("/admin", "roles = [\"admin\"]"),
        route("/admin/{*rest}", "name = \"open\"\naccess = \"public\""),
    ];
    let findings = findings(&text.concat());
    let ids: Vec<_> = findings.iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["spelling_slash"], "other spellings have two readings, and are refused");
    let line = findings[0].to_string();
    assert!(line.starts_with("gateway.toml:11:1: fault: route[0].path: route \"open\" (/admin/{*rest}) allows `GET /admin/` for everyone, although `GET /admin` is refused"), "{line}");
    assert!(line.contains("waive = { spelling_slash = "), "{line}");
}

#[test]
fn a_route_with_the_same_rule_or_other_servers_is_no_bypass() {
    for other in [
        &[][..],
        &[("/{*rest}", "roles = [\"admin\"]")],
        &[("/{*rest}", "roles = [\"admin\"]\nscopes = [\"x\"]")],
        &[("/{*rest}", "upstream = \"site\"\naccess = \"public\"")],
        &[("/other/{*rest}", PUBLIC)],
        &[("/{*rest}", "host = \"site.example.com\"\naccess = \"public\"")],
        &[("/", PUBLIC)],
    ] {
        let routes = [&[("/admin", "roles = [\"admin\"]")], other].concat();
        assert_eq!(found(&routes), [], "{other:?}");
    }
}

#[test]
fn a_server_in_another_spelling_is_the_same_server() {
    let upstreams = "[upstream.a]\nservers = [\"http://App.example\"]\n[upstream.b]\nservers = [\"http://app.example:80/\"]\n";
    let layout = [
        route("/admin", "upstream = \"a\"\nroles = [\"admin\"]"),
        route("/admin/{*rest}", "upstream = \"b\"\naccess = \"public\""),
    ];
    let found: Vec<_> =
        findings(&format!("{upstreams}{}", layout.concat())).iter().map(|one| one.id).collect();
    assert_eq!(found, ["spelling_slash"]);
}

#[test]
fn callers_that_meet_the_other_rule_are_tried_too() {
    for rule in [
        "",
        "roles = [\"clerk\"]",
        "scopes = [\"x\"]",
        "claims = { tenant = \"acme\" }",
        "roles = [\"a\", \"admin\"]",
    ] {
        let found = found(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", rule)]);
        let first = ("route[0].path".to_owned(), "spelling_slash");
        assert!(found.contains(&first), "{rule}: {found:?}");
    }
    assert_eq!(found(&[("/admin", ""), ("/{*rest}", "roles = [\"clerk\"]")]), []);
}

#[test]
fn a_folder_is_tried_without_its_slash_and_a_path_with_one() {
    let slash = |routes: &[(&str, &str)]| {
        let found = found(routes);
        found.into_iter().filter(|(_, id)| *id == "spelling_slash").map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(slash(&[("/admin/{*rest}", ""), ("/admin", PUBLIC)]), ["route[0].path"]);
    assert_eq!(slash(&[("/admin/{*rest}", ""), ("/{*rest}", PUBLIC)]), [""; 0]);
    assert_eq!(slash(&[("/admin/", ""), ("/admin", PUBLIC)]), ["route[0].path"]);
    assert_eq!(slash(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", "")]), ["route[0].path"]);
    assert_eq!(slash(&[("/admin/{*rest}", ""), ("/admin", ""), ("/{*rest}", PUBLIC)]), [""; 0]);
}

#[test]
fn the_canonical_path_that_the_upstream_gets_decides() {
    let stripped = "strip_prefix = \"/api\"";
    let other = |path: &'static str| found(&[("/api/{*rest}", stripped), (path, PUBLIC)]);
    assert_eq!(other("/Api/{*rest}"), [], "it gets /Api/x, and guards /x");
    let folder = "access = \"public\"\nstrip_prefix = \"/API\"";
    assert_eq!(
        found(&[("/api/{*rest}", stripped), ("/API/{*rest}", folder)]),
        ["spelling_case", "open_by_rewriting"].map(|id| ("route[0].path".to_owned(), id)),
    );
}

#[test]
fn each_method_is_tried_where_routes_differ_by_it() {
    let routes = [
        ("/admin", "roles = [\"admin\"]"),
        ("/admin/{*rest}", "methods = [\"DELETE\"]\naccess = \"public\""),
    ];
    let text: String = routes.iter().map(|(path, rest)| route(path, rest)).collect();
    let findings = findings(&text);
    assert_eq!(findings.len(), 1);
    assert!(findings.iter().all(|finding| finding.found.contains("`DELETE ")), "{findings:?}");
}

#[test]
fn a_route_in_the_shadow_is_weak_and_no_guard_is_weaker_than_its_rule() {
    let shadow = "roles = [\"admin\"]\nmode = \"shadow\"";
    assert_eq!(found(&[("/admin", "roles = [\"admin\"]"), ("/admin/{*rest}", shadow)]).len(), 1);
    assert_eq!(found(&[("/admin", shadow), ("/admin/{*rest}", PUBLIC)]).len(), 1);
}

#[test]
fn a_finding_is_waived_for_its_route_or_for_the_whole_file_and_no_other_is() {
    let waive = "waive = { spelling_slash = \"the service distinguishes them\" }";
    let kinds = |text: String| findings(&text).into_iter().map(|finding| finding.id).collect::<Vec<_>>();
    let routes = |rest: &str| route("/admin", rest) + &route("/admin/{*rest}", PUBLIC);
    assert_eq!(kinds(routes(waive)), [""; 0]);
    assert_eq!(kinds(format!("[policy]\n{waive}\n{}", routes(""))), [""; 0]);
    assert_eq!(
        kinds(routes("") + &route("/other", waive)),
        ["spelling_slash"],
        "of another route it says nothing"
    );
    assert_eq!(kinds(routes(&waive.replace("slash", "case"))), ["spelling_slash"]);
}

#[test]
fn the_endpoints_of_the_authority_are_read_by_nobody_else() {
    let text =
        "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"portcullis\"]\ncookies = true\n";
    assert_eq!(findings(&format!("{text}{}", route("/{*rest}", PUBLIC))), []);
}

#[test]
fn of_many_findings_of_a_kind_a_hundred_are_listed_and_the_others_counted() {
    let pair = |nth: usize| {
        route(&format!("/s{nth}/orders"), "roles = [\"r\"]")
            + &route(&format!("/s{nth}/orders/{{*rest}}"), PUBLIC)
    };
    let text: String = (0..300).map(pair).collect();
    let begun = std::time::Instant::now();
    let findings = findings(&text);
    println!("{:?}", begun.elapsed());
    assert_eq!(findings.len(), FINDINGS_MAX);
    assert!(
        findings[FINDINGS_MAX - 1].found.ends_with("applies to 200 more routes"),
        "{}",
        findings[FINDINGS_MAX - 1]
    );
}

fn guarded() -> impl Strategy<Value = (String, String)> {
    let path = "(/([a-z]{1,6}|\\{[a-z]\\})){1,3}(/|/\\{\\*rest\\})?".prop_filter(
        "parameters have their own names",
        |path| {
            let names: Vec<_> = path.split('/').filter(|segment| segment.starts_with('{')).collect();
            names.iter().collect::<HashSet<_>>().len() == names.len()
        },
    );
    (
        path,
        proptest::sample::select(vec![
            "",
            "roles = [\"admin\"]",
            "scopes = [\"x\"]",
            "methods = [\"GET\", \"PUT\"]",
        ]),
    )
        .prop_map(|(path, rule)| (path, rule.to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_route_for_all_else_is_no_way_around_any_guarded_route_public_or_not((path, rule) in guarded()) {
        let with = |other: &str| found(&[(&path, &rule), ("/{*rest}", other)]);
        // A path that consists only of parameters is itself a catch-all.
        prop_assume!(path.split('/').skip(1).any(|segment| !segment.starts_with('{')));
        let bypass = with(PUBLIC);
        prop_assert_eq!(bypass, vec![], "{}", path);
        let same = rule.replace("methods = [\"GET\", \"PUT\"]", "");
        prop_assert_eq!(with(&same), vec![]);
    }

    #[test]
    fn routes_that_ask_the_same_are_never_a_way_around_each_other(routes in proptest::collection::vec(guarded(), 1..8), merge in any::<bool>()) {
        let mut known = HashSet::new();
        let shape = |path: &str| path.split('/').map(|segment| if segment.starts_with("{*") { "{*}" } else if segment.starts_with('{') { "{}" } else { segment }.to_owned()).collect::<Vec<_>>();
        let text: String = routes.iter().filter(|(path, _)| known.insert(shape(path))).map(|(path, _)| route(path, "roles = [\"r\"]")).collect();
        let server = if merge { "[server]\npaths = \"merge\"\n" } else { "" };
        prop_assert_eq!(findings(&format!("{server}{text}")), vec![]);
    }
}

#[test]
fn a_header_that_leads_to_a_weaker_route_is_a_way_around_and_only_a_weakness() {
    let version = "headers = { X-V = \"2\" }";
    let of =
        |guarded: &str, other: &str| found(&[("/a", guarded), ("/a", &format!("name = \"other\"\n{other}"))]);
    let (admin, clerk) = ("roles = [\"admin\"]", "roles = [\"admin\", \"clerk\"]");
    let around = |route: usize| vec![(format!("route[{route}].path"), "open_by_another_header")];
    assert_eq!(of(&format!("{admin}\n{version}"), PUBLIC), around(0), "without the header");
    assert_eq!(of(admin, &format!("{PUBLIC}\n{version}")), around(0), "with the header");
    assert_eq!(of(admin, &format!("{clerk}\n{version}")), around(0), "another role is weaker");
    assert_eq!(
        of(&format!("{admin}\n{version}"), &format!("{clerk}\nheaders = {{ X-V = \"3\" }}")),
        around(0)
    );
    assert_eq!(of(admin, &format!("{admin}\n{version}")), []);
    assert_eq!(of(admin, &format!("{PUBLIC}\n{version}\nupstream = \"site\"")), []);
    let text = route("/a", admin) + &route("/a", &format!("name = \"other\"\n{PUBLIC}\n{version}"));
    let finding = findings(&text).remove(0);
    assert_eq!(finding.severity, Severity::Warning, "the service may check the header");
    assert!(
        finding.found.contains("allows `GET /a with x-v: 2` for everyone, although `GET /a` is refused"),
        "{}",
        finding.found
    );
}

#[test]
fn a_path_that_another_route_rewrites_to_a_guarded_one_is_found() {
    let rewritten = |routes: &[(&str, &str)]| {
        let found = found(routes);
        found.into_iter().filter(|(_, id)| *id == "open_by_rewriting").map(|(key, _)| key).collect::<Vec<_>>()
    };
    let open = |changes: &str| format!("{PUBLIC}\n{changes}");
    let strip = open("strip_prefix = \"/open\"");
    let add = open("add_prefix = \"/admin\"");
    let both = open("strip_prefix = \"/open\"\nadd_prefix = \"/v1\"");
    assert_eq!(rewritten(&[("/admin/{*rest}", ""), ("/open/{*rest}", &strip)]), ["route[0].path"]);
    assert_eq!(rewritten(&[("/admin/{*rest}", ""), ("/open/admin/{id}", &strip)]), ["route[0].path"]);
    assert_eq!(rewritten(&[("/admin/{*rest}", ""), ("/open/shop/{id}", &strip)]), [""; 0]);
    assert_eq!(rewritten(&[("/admin/{*rest}", ""), ("/{*rest}", &add)]), ["route[0].path"]);
    assert_eq!(rewritten(&[("/v1/{*rest}", ""), ("/open/{*rest}", &both)]), ["route[0].path"]);
    assert_eq!(rewritten(&[("/admin/{*rest}", ""), ("/open/{*rest}", &both)]), [""; 0]);
    assert_eq!(
        rewritten(&[("/api/{*rest}", "strip_prefix = \"/api\""), ("/{*rest}", PUBLIC)]),
        ["route[0].path"]
    );
}

#[test]
fn a_path_that_a_pattern_or_a_copy_leads_to_a_guarded_one_is_found() {
    let found = |routes: &[(&str, &str)]| {
        let found = found(routes);
        found.into_iter().filter(|(_, id)| *id == "open_by_rewriting").map(|(key, _)| key).collect::<Vec<_>>()
    };
    let pattern =
        |pattern: &str, to: &str| format!("{PUBLIC}\nrewrite_pattern = '{pattern}'\nrewrite_to = \"{to}\"");
    let guarded = ("/admin/{*rest}", "roles = [\"admin\"]");
    let hit = ["route[0].path"];
    assert_eq!(found(&[guarded, ("/open/{*rest}", &pattern("/open/(.*)", "/{1}"))]), hit);
    assert_eq!(found(&[guarded, ("/open/{id}", &pattern("/open/([^/]+)", "/admin/{1}"))]), hit);
    assert_eq!(found(&[guarded, ("/open/{*rest}", &pattern("/open/(.*)", "/v2/{1}"))]), [""; 0]);
    assert_eq!(found(&[guarded, ("/open/{id}", &pattern("/open/([^/]+)", "/{1}"))]), [""; 0]);
    // The guarded route has the pattern.
    let moved = "roles = [\"admin\"]\nrewrite_pattern = '/admin/(.*)'\nrewrite_to = \"/v2/{1}\"";
    assert_eq!(found(&[("/admin/{*rest}", moved), ("/v2/{*rest}", PUBLIC)]), hit);

    let upstreams =
        "[upstream.a]\nservers = [\"http://a.test\"]\n[upstream.b]\nservers = [\"http://b.test\"]\n";
    let with = |more: &str| {
        let copied = format!("{PUBLIC}\nupstream = \"b\"\nstrip_prefix = \"/open\"\n{more}");
        let kept = route("/admin/{*rest}", "roles = [\"admin\"]\nupstream = \"a\"");
        let found = findings(&format!("{upstreams}{kept}{}", route("/open/{*rest}", &copied)));
        found.iter().map(|finding| finding.id).collect::<Vec<_>>()
    };
    assert_eq!(with("mirror = \"a\""), ["open_by_rewriting"]);
    assert_eq!(with(""), [""; 0]);
    assert_eq!(with("mirror = \"a\"\nmirror_percent = 0"), [""; 0]);
}

/// The folders are those of this repository.
#[test]
fn a_file_that_another_route_sends_for_less_is_found() {
    let files = |path: &str, folder: &str, rest: &str| {
        format!("[[route]]\npath = \"{path}\"\nfiles = \"{folder}\"\n{rest}\n")
    };
    let open = |path: &str, folder: &str, rest: &str| files(path, folder, &format!("{PUBLIC}\n{rest}"));
    let found = |one: &str, other: &str| -> Vec<_> {
        findings(&[one, other].concat()).into_iter().map(|finding| (finding.key, finding.id)).collect()
    };
    let way = |id| vec![("route[0].path".to_owned(), id)];
    let guarded = files("/docs/{*rest}", "docs", "strip_prefix = \"/docs\"");
    let strip = "strip_prefix = \"/open\"";
    assert_eq!(found(&guarded, &open("/open/{*rest}", "docs", strip)), way("open_by_rewriting"));
    assert_eq!(found(&guarded, &open("/{*rest}", "benches", "")), []);
    assert_eq!(found(&guarded, &files("/open/{*rest}", "docs", strip)), [], "with the same rule");
    // The folder around the guarded one.
    let nested = files("/team/{*rest}", "docs/forward-auth", "strip_prefix = \"/team\"");
    assert_eq!(found(&nested, &open("/{*rest}", "docs", "")), way("open_by_rewriting"));
    // The guarded route has the only path of its files.
    assert_eq!(found(&files("/deploy/{*rest}", "docs", ""), &open("/{*rest}", "docs", "")), []);
    // A folder within the guarded one is open on purpose.
    let inner = open("/open/{*rest}", "docs/deploy", strip);
    assert_eq!(found(&files("/{*rest}", "docs", ""), &inner), []);
    let host = files("/{*rest}", "docs", "name = \"in\"\nhost = \"in.example.com\"");
    assert_eq!(found(&host, &open("/{*rest}", "docs", "")), way("open_by_another_host"));
    let found = findings(&(guarded + &open("/open/{*rest}", "docs", strip))).remove(0).found;
    assert!(found.ends_with("although `GET /docs/sample` is refused: both get the same file"), "{found}");
}
