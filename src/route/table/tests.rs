//! Tests of look-ups in a table.

use super::*;
use crate::route::path;
use crate::route::pattern::LITERAL_BYTES_MAX;
use http::HeaderMap;
use proptest::prelude::*;
use std::borrow::Cow;

fn matcher(host: &str, path: &str, methods: &[&str]) -> Matcher {
    Matcher {
        host: if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() },
        path: PathPattern::parse(path).unwrap(),
        methods: if methods.is_empty() { Methods::any() } else { Methods::parse(methods).unwrap() },
        fields: Fields::default(),
    }
}

fn build(entries: &[(&str, &str, &[&str])]) -> Result<RouteTable<usize>, Vec<Conflict>> {
    let entries = entries.iter().enumerate();
    RouteTable::build(
        entries.map(|(nth, (host, path, methods))| (matcher(host, path, methods), nth)).collect(),
    )
}

fn paths(entries: &[&str]) -> RouteTable<usize> {
    build(&entries.iter().map(|path| ("", *path, &[][..])).collect::<Vec<_>>()).unwrap()
}

#[test]
fn an_entry_that_no_request_reaches_is_reported_with_one_that_wins() {
    let all = ["/a/{*rest}", "/a/", "/a/{x}", "/a/{x}/", "/a/{x}/{y}", "/a/{x}/{y}/{*z}"];
    let requests = ["/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d"];
    let table = paths(&all);
    assert_eq!(table.unreachable(), [(0, 5)]);
    assert!(requests.iter().all(|path| get(&table, path) != Some(0)));
    // If any other entry is missing, the first entry receives a request.
    for missing in 1..all.len() {
        let some: Vec<_> = all.iter().filter(|path| **path != all[missing]).copied().collect();
        let table = paths(&some);
        assert_eq!(table.unreachable(), [], "{some:?}");
        assert_eq!(get(&table, requests[missing - 1]), Some(0), "{some:?}");
    }
}

/// Returns the index and the parameters of the matching entry.
fn find<T>(
    table: &RouteTable<T>,
    method: &Method,
    host: Option<&str>,
    path: &str,
) -> Result<(usize, Vec<String>), Denial> {
    let headers = HeaderMap::new();
    let path = path::canonical(path).unwrap();
    let head =
        Head { method, host: host.map(Cow::Borrowed), port: None, path, query: None, headers: &headers };
    let found = table.find(&head)?;
    assert_eq!(found.params.as_slice().len(), found.matcher.path.params().len());
    let index = table.iter().position(|(_, entry)| std::ptr::eq(entry, found.entry)).unwrap();
    Ok((index, found.params.as_slice().iter().map(ToString::to_string).collect()))
}

fn get(table: &RouteTable<usize>, path: &str) -> Option<usize> {
    find(table, &Method::GET, Some("h"), path).ok().map(|(index, _)| index)
}

#[test]
fn a_literal_wins_over_a_parameter_and_that_over_the_rest() {
    let table = paths(&["/a/{*rest}", "/a/{id}", "/a/b"]);
    assert_eq!(get(&table, "/a/b"), Some(2));
    assert_eq!(get(&table, "/a/c"), Some(1));
    assert_eq!(get(&table, "/a/c/d"), Some(0));
    assert_eq!(get(&table, "/a/"), Some(0));
    assert_eq!(get(&table, "/a"), None);
}

/// Builds a table whose entries have the same upstream. Each entry has a different rule, except the public entries.
fn guarded(paths: &[(&str, bool)]) -> RouteTable<(usize, bool)> {
    let entries = paths.iter().enumerate();
    let entries = entries.map(|(nth, (path, public))| (matcher("", path, &[]), (nth, *public))).collect();
    RouteTable::build(entries).unwrap().guarding(|(nth, public)| Guard {
        before: 0,
        asks: (!public).then(|| u64::try_from(*nth).unwrap()),
        is_lax: false,
    })
}

#[test]
fn a_last_slash_never_leads_past_a_route_that_was_written_for_the_path() {
    let refused = |paths: &[(&str, bool)], path: &str| {
        let table = guarded(paths);
        matches!(find(&table, &Method::GET, None, path), Err(Denial::BadRequest(Malformed::OtherRoute)))
    };
    let site = ("/{*rest}", true);
    for (paths, path, is_refused) in [
        (&[site, ("/api/{*rest}", false)][..], "/api", true),
        (&[site, ("/api/{*rest}", false)], "/API", true),
        (&[site, ("/api/{*rest}", false)], "/api/", false),
        (&[site, ("/api/{*rest}", false)], "/apis", false),
        (&[site, ("/admin", false)], "/admin/", true),
        (&[("/{page}", true), ("/api/{*rest}", false)], "/api", true),
        (&[("/api/{*rest}", false), ("/api/orders/{id}", false)], "/api/orders/7/", true),
        (&[("/api/{*rest}", false), ("/api/orders/{id}", false)], "/api/orders/7/8", false),
        // A route exists for each of the two paths, so each path is guarded by its own rule.
        (&[site, ("/api/{*rest}", false), ("/api", true)], "/api", false),
        (&[("/api/{*rest}", false), ("/api", false)], "/api/", false),
        (&[("/api/", false), ("/api", true)], "/api", false),
        // An entry with fewer requirements for another path bypasses no guard.
        (&[("/{*rest}", false), ("/login", true)], "/login/", false),
    ] {
        assert_eq!(refused(paths, path), is_refused, "{paths:?} {path}");
    }
}

#[test]
fn a_guard_of_all_hosts_is_not_passed_by_without_its_slash_on_a_host_with_routes_of_its_own() {
    for (general, guarded_host) in [("h", ""), ("a.h", "*.h"), ("*.h", "")] {
        let entries = [(matcher(general, "/{page}", &[]), 0), (matcher(guarded_host, "/a/", &[]), 1)];
        let table = RouteTable::build(entries.to_vec()).unwrap();
        let table = table.guarding(|nth: &u64| Guard { before: 0, asks: nth.checked_sub(1), is_lax: false });
        let met =
            |path: &str| find(&table, &Method::GET, Some(if general == "h" { "h" } else { "a.h" }), path);
        assert_eq!(met("/a"), Err(Denial::BadRequest(Malformed::OtherRoute)), "{general} {guarded_host}");
        assert_eq!(met("/a/").unwrap().0, 1);
        assert_eq!(met("/b").unwrap().0, 0);
    }
}

#[test]
fn characters_that_windows_drops_at_the_end_of_a_name_bypass_no_guard() {
    let table = guarded(&[("/{*rest}", true), ("/admin/{*rest}", false), ("/v1.", true)]);
    for path in ["/admin./x", "/admin%20/x", "/admin%C2%A0/x", "/admin::$DATA/x", "/admin.%20/x", "/ADMIN./x"]
    {
        let met = find(&table, &Method::GET, None, path);
        assert_eq!(met, Err(Denial::BadRequest(Malformed::OtherRoute)), "{path}");
    }
    for (path, index) in
        [("/admins./x", 0), ("/x.y/z.js", 0), ("/.well-known/x", 0), ("/v1.", 2), ("/admin/x.", 1)]
    {
        assert_eq!(find(&table, &Method::GET, None, path).unwrap().0, index, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn precomputed_trailing_slashes_change_no_answer(
        patterns in proptest::collection::vec(
            ("(/([ab]|\\{x\\})){0,2}(/|/[ab]|/\\{y\\}|/\\{\\*r\\})", 0..3_u64, 0..2_u64, proptest::sample::select(vec!["", "h", "*.h", "*.g.h"])), 1..7
        ),
        path in "(/[abAc]){0,3}(/|/[ab])",
        host in proptest::sample::select(vec!["h", "g.h", "i.g.h", "z"]),
    ) {
        let entries: Vec<_> = patterns.iter().filter(|(path, ..)| path.matches("{x}").count() < 2).collect();
        let matchers = entries.iter().map(|(path, _, _, host)| matcher(host, path, &[])).enumerate();
        let Ok(table) = RouteTable::build(matchers.map(|(nth, matcher)| (matcher, nth)).collect()) else { return Ok(()) };
        let guard = |nth: &usize| Guard { before: entries[*nth].2, asks: entries[*nth].1.checked_sub(1), is_lax: false };
        let mut table = table.guarding(guard);
        let quick = find(&table, &Method::GET, Some(host), &path);
        table.spots.iter_mut().for_each(|spot| spot.slash = true);
        prop_assert_eq!(quick, find(&table, &Method::GET, Some(host), &path), "{:?} {}", patterns, path);
    }
}

#[test]
fn an_odd_spelling_is_refused_only_where_it_gets_past_a_guard() {
    let guard = |before, asks, is_lax| Guard { before, asks, is_lax };
    let table = |admin: Guard, rest: Guard| {
        let guards = [admin, rest];
        let entries = ["/admin", "/{*rest}"].map(|path| matcher("", path, &[]));
        let table = RouteTable::build(entries.into_iter().zip([0, 1]).collect()).unwrap();
        table.guarding(|index| guards[*index])
    };
    let is_refused = |table: &RouteTable<usize>, path| {
        find(table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute))
    };
    let (role, other, nothing) = (Some(1), Some(2), None);
    for (admin, rest, refused) in [
        (guard(0, role, false), guard(0, nothing, false), true),
        (guard(0, role, false), guard(0, other, false), true),
        (guard(0, role, false), guard(0, role, true), true),
        (guard(0, role, false), guard(0, role, false), false),
        (guard(0, nothing, false), guard(0, role, false), false),
        (guard(0, role, false), guard(7, nothing, false), false),
    ] {
        let table = table(admin, rest);
        for path in ["/Admin", "/admin;x=1", "/admin%3Bx", "/%2561dmin"] {
            assert_eq!(is_refused(&table, path), refused, "{path}: {admin:?} {rest:?}");
        }
        assert!(!is_refused(&table, "/admin") && !is_refused(&table, "/Other;x=1"));
    }
    for (before, refused) in [(0, true), (7, false)] {
        let guards = [guard(before, nothing, false), guard(0, nothing, false), guard(0, role, false)];
        let entries = [("/page", &["GET"][..]), ("/{*rest}", &[]), ("/guarded", &[])];
        let entries = entries.map(|(path, methods)| matcher("", path, methods));
        let table = RouteTable::build(entries.into_iter().zip([0, 1, 2]).collect()).unwrap();
        let table = table.guarding(|index| guards[*index]);
        let posted = find(&table, &Method::POST, None, "/Page");
        assert_eq!(posted == Err(Denial::BadRequest(Malformed::OtherRoute)), refused, "{before}");
        assert!(!is_refused(&table, "/Page"), "by GET it passes as it is");
    }
}

#[test]
fn an_earlier_segment_decides_before_a_later_one() {
    let table = paths(&["/{x}/b/c", "/a/{*rest}", "/a/{y}/d"]);
    assert_eq!(get(&table, "/a/b/c"), Some(1));
    assert_eq!(get(&table, "/a/b/d"), Some(2));
    assert_eq!(get(&table, "/z/b/c"), Some(0));
    assert_eq!(get(&table, "/z/b/d"), None);
}

#[test]
fn a_dead_end_leaves_no_parameter_behind() {
    let table = paths(&["/{a}/{b}/x", "/{*rest}"]);
    assert_eq!(find(&table, &Method::GET, None, "/1/2/3"), Ok((1, vec!["1/2/3".into()])));
    assert_eq!(find(&table, &Method::GET, None, "/1/2/x"), Ok((0, vec!["1".into(), "2".into()])));
    assert_eq!(find(&table, &Method::GET, None, "/"), Ok((1, vec![String::new()])));
}

#[test]
fn a_trailing_slash_is_another_path_and_a_parameter_is_never_empty() {
    let table = paths(&["/a", "/b/", "/c/{id}"]);
    assert_eq!(get(&table, "/a"), Some(0));
    assert_eq!(get(&table, "/a/"), None);
    assert_eq!(get(&table, "/b/"), Some(1));
    assert_eq!(get(&table, "/b"), None);
    assert_eq!(get(&table, "/c/"), None);
    assert_eq!(get(&table, "/c/1/"), None);
}

#[test]
fn no_spelling_of_a_literal_falls_through_to_a_laxer_route() {
    let table = paths(&["/{*rest}", "/@me", "/a%20b"]);
    for path in ["/@me", "/%40me", "/%40m%65"] {
        assert_eq!(get(&table, path), Some(1), "{path}");
    }
    assert_eq!(get(&table, "/a%20b"), Some(2));
    assert_eq!(get(&table, "/%2540me"), None, "who decodes twice sees the literal");
    assert_eq!(get(&table, &format!("/%20{}", "a".repeat(2 * LITERAL_BYTES_MAX))), Some(0));
}

#[test]
fn a_path_with_parameters_that_another_route_would_cover_without_is_refused() {
    let table = paths(&["/{*rest}", "/admin", "/files/{name}", "/folder/{*rest}", "/x/"]);
    let refused =
        |path| find(&table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute));
    for path in
        ["/admin;x", "/admin;", "/admin%3Bx", "/admin%3b", "/x/;y", "/;x/admin", "/;/admin", "/files;x/a"]
    {
        assert!(refused(path), "{path}");
    }
    assert!(refused("/files/;x"), "without it the name is empty, which is no name");
    for (path, index) in [
        ("/admin", 1),
        ("/adminx", 0),
        ("/y;x", 0),
        ("/files/a;v=2", 2),
        ("/files/a%3Bb", 2),
        ("/folder/a;x/b", 3),
        ("/folder/;x", 3),
    ] {
        assert_eq!(get(&table, path), Some(index), "{path}");
    }
    let alone = paths(&["/a"]);
    assert_eq!(find(&alone, &Method::GET, None, "/a;x"), Err(Denial::NoRoute));
}

#[test]
fn a_path_that_is_another_routes_but_for_case_or_a_second_encoding_is_refused() {
    let table = paths(&["/{*rest}", "/admin/users", "/Reports", "/files/{name}", "/x", "/X", "/%C3%A9"]);
    let refused =
        |path: &str| find(&table, &Method::GET, None, path) == Err(Denial::BadRequest(Malformed::OtherRoute));
    for path in [
        "/Admin/users",
        "/admin/USERS",
        "/reports",
        "/REPORTS",
        "/Files/a",
        "/%2561dmin/users",
        "/admin%252fusers",
        "/admin%255cusers",
        "/%252561dmin/users",
        "/Admin;x/users",
        "/files%252Fa",
        "/%25C3%25A9",
        "/%252e/admin",
        "/a%2500",
        "/%25252525252525",
        "/a%25ff",
    ] {
        assert!(refused(path), "{path}");
    }
    for (path, index) in [
        ("/admin/users", 1),
        ("/admin/Other", 0),
        ("/Reports", 2),
        ("/files/A%20B", 3),
        ("/files/100%25", 3),
        ("/files/a%2520b", 3),
        ("/x", 4),
        ("/X", 5),
        ("/Else/%2561", 0),
        ("/%C3%A9", 6),
    ] {
        assert_eq!(get(&table, path), Some(index), "{path}");
    }
}

#[test]
fn the_most_specific_host_with_a_path_wins() {
    let table = build(&[
        ("", "/x", &[]),
        ("*.example.com", "/x", &[]),
        ("*.eu.example.com", "/x", &[]),
        ("api.eu.example.com", "/x", &[]),
        ("", "/any", &[]),
        ("*.example.com", "/any", &[]),
    ])
    .unwrap();
    let index = |host, path| find(&table, &Method::GET, host, path).unwrap().0;
    assert_eq!(index(Some("api.eu.example.com"), "/x"), 3);
    assert_eq!(index(Some("www.eu.example.com"), "/x"), 2);
    assert_eq!(index(Some("v1.api.eu.example.com"), "/x"), 2);
    assert_eq!(index(Some("eu.example.com"), "/x"), 1);
    assert_eq!(index(Some("example.com"), "/x"), 0);
    assert_eq!(index(Some("anexample.com"), "/x"), 0);
    assert_eq!(index(None, "/x"), 0);
    // The exact host has no such path, so the next wider host is searched.
    assert_eq!(index(Some("api.eu.example.com"), "/any"), 5);
    assert_eq!(index(Some("other.org"), "/any"), 4);
}

#[test]
fn a_host_is_more_specific_than_any_path() {
    let table = build(&[("", "/a/b", &[]), ("h", "/{*rest}", &[])]).unwrap();
    assert_eq!(find(&table, &Method::GET, Some("h"), "/a/b").unwrap().0, 1);
    assert_eq!(find(&table, &Method::GET, Some("g"), "/a/b").unwrap().0, 0);
}

#[test]
fn a_method_is_refused_rather_than_left_to_a_laxer_route() {
    let table =
        build(&[("", "/{*rest}", &[]), ("", "/o/{id}", &["GET"]), ("", "/o/{name}", &["PUT", "DELETE"])])
            .unwrap();
    let find = |method, path| find(&table, &method, None, path).map(|(index, _)| index);
    assert_eq!(find(Method::GET, "/o/1"), Ok(1));
    assert_eq!(find(Method::HEAD, "/o/1"), Ok(1));
    assert_eq!(find(Method::DELETE, "/o/1"), Ok(2));
    assert_eq!(
        find(Method::POST, "/o/1"),
        Err(Denial::MethodNotAllowed(Arc::from("GET, HEAD, PUT, DELETE")))
    );
    assert_eq!(find(Method::POST, "/o"), Ok(0));
    assert!(matches!(find(Method::TRACE, "/o"), Err(Denial::MethodNotAllowed(_))));
}

#[test]
fn a_host_with_the_path_but_not_the_method_is_refused_too() {
    let table = build(&[("h", "/a", &["GET"]), ("", "/a", &[])]).unwrap();
    assert!(matches!(find(&table, &Method::POST, Some("h"), "/a"), Err(Denial::MethodNotAllowed(_))));
    assert_eq!(find(&table, &Method::POST, Some("g"), "/a").unwrap().0, 1);
}

#[test]
fn an_empty_table_has_no_route() {
    let table = paths(&[]);
    assert_eq!(table.iter().count(), 0);
    assert_eq!(find(&table, &Method::GET, Some("h"), "/"), Err(Denial::NoRoute));
}

#[test]
fn entries_that_claim_the_same_requests_are_conflicts() {
    let conflicts = |entries: &[(&str, &str, &[&str])]| build(entries).err().unwrap_or_default();
    assert_eq!(
        conflicts(&[
            ("", "/a/{x}", &["GET"]),
            ("", "/b", &[]),
            ("", "/a/{y}", &["HEAD"]),
            ("", "/a/{z}", &[])
        ]),
        [
            Conflict { first: 0, second: 2, by_fields: false },
            Conflict { first: 0, second: 3, by_fields: false }
        ]
    );
    assert_eq!(
        conflicts(&[("", "/", &["GET"]), ("", "/", &["PUT"]), ("", "/", &["POST", "PUT"]), ("", "/", &[])]),
        [
            Conflict { first: 1, second: 2, by_fields: false },
            Conflict { first: 0, second: 3, by_fields: false }
        ]
    );
    assert_eq!(
        conflicts(&[("", "/", &[]), ("", "/", &["PUT"]), ("", "/", &["PUT"])]),
        [
            Conflict { first: 0, second: 1, by_fields: false },
            Conflict { first: 0, second: 2, by_fields: false }
        ]
    );
    assert_eq!(conflicts(&[("A.b", "/", &[]), ("a.b.", "/", &[])]).len(), 1);
    assert!(conflicts(&[("a.b", "/", &[]), ("*.b", "/", &[]), ("", "/", &[])]).is_empty());
    assert!(conflicts(&[("", "/a", &["GET"]), ("", "/a", &["POST"])]).is_empty());
    assert!(
        conflicts(&[("", "/{a}", &[]), ("", "/{*a}", &[]), ("", "/a", &[]), ("", "/a/", &[])]).is_empty()
    );
}

#[test]
fn a_route_that_loses_methods_to_a_more_specific_route_is_reported() {
    let table = build(&[
        ("", "/o/{id}", &["GET", "DELETE"]),
        ("", "/o/new", &["GET"]),
        ("", "/o/all", &["GET"]),
        ("", "/o/all", &["DELETE"]),
        ("", "/p/{id}", &["GET"]),
    ])
    .unwrap();
    assert_eq!(table.shadowed(), [(0, 1)]);
    assert_eq!(table.iter().count(), 5);
}

/// Whether two sets share a method.
fn overlaps(one: &Methods, other: &Methods) -> bool {
    let has_one_of = |one: &Methods, other: &Methods| other.iter().any(|method| one.contains(method));
    has_one_of(one, other) || has_one_of(other, one)
}

/// A slow model of the table. Returns how specific a pattern is and its parameters, or `None` if it does not match.
fn model_covers(pattern: &str, path: &str) -> Option<(Vec<u8>, Vec<String>)> {
    let (mut kinds, mut values) = (Vec::new(), Vec::new());
    let mut left = Some(&path[1..]);
    for part in pattern[1..].split('/') {
        let whole = left?;
        let (segment, tail) =
            whole.split_once('/').map_or((whole, None), |(segment, tail)| (segment, Some(tail)));
        if part.starts_with("{*") {
            kinds.push(2);
            values.push(whole.to_owned());
            left = None;
        } else if part.starts_with('{') {
            if segment.is_empty() {
                return None;
            }
            kinds.push(1);
            values.push(segment.to_owned());
            left = tail;
        } else {
            if part != segment {
                return None;
            }
            kinds.push(0);
            left = tail;
        }
    }
    left.is_none().then_some((kinds, values))
}

fn model_host(pattern: &str, host: Option<&str>) -> Option<(u8, usize)> {
    match (pattern, pattern.strip_prefix('*')) {
        ("", _) => Some((2, 0)),
        (_, Some(suffix)) => {
            let host = host.filter(|host| host.ends_with(suffix) && host.len() > suffix.len())?;
            Some((1, host.len() - suffix.len()))
        }
        (name, None) => (host == Some(name)).then_some((0, 0)),
    }
}

fn entry() -> impl Strategy<Value = (&'static str, String, Vec<&'static str>)> {
    let segment = proptest::sample::select(vec!["a", "b", "c", "{p}", "{p}"]);
    let end = proptest::sample::select(vec!["", "/", "/{*r}"]);
    let path = (proptest::collection::vec(segment, 0..4), end).prop_map(|(segments, end)| {
        let mut path = String::new();
        for (nth, segment) in segments.iter().enumerate() {
            path.push('/');
            path.push_str(&segment.replace('p', &format!("p{nth}")));
        }
        path.push_str(end);
        if path.is_empty() { "/".to_owned() } else { path }
    });
    let host = proptest::sample::select(vec!["", "", "x.y", "z.x.y", "*.y", "*.x.y"]);
    let methods =
        proptest::sample::select(vec![vec![], vec!["GET"], vec!["POST", "PUT"], vec!["GET", "POST"]]);
    (host, path, methods)
}

/// Drops each entry that conflicts with an earlier entry. Returns the other entries and their table.
fn kept(entries: Vec<(&'static str, String, Vec<&'static str>)>) -> (Vec<Matcher>, RouteTable<usize>) {
    let mut kept: Vec<Matcher> = Vec::new();
    for (host, path, methods) in entries {
        kept.push(matcher(host, &path, &methods));
        if RouteTable::build(kept.iter().cloned().map(|matcher| (matcher, ())).collect()).is_err() {
            kept.pop();
        }
    }
    let entries = kept.iter().cloned().enumerate().map(|(nth, matcher)| (matcher, nth));
    let table = RouteTable::build(entries.collect()).unwrap();
    (kept, table)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_spelling_that_a_lenient_reader_takes_for_a_path_ever_leads_to_another_route(
        entries in proptest::collection::vec(entry(), 0..24),
        host in proptest::sample::select(vec![None, Some("x.y"), Some("z.x.y"), Some("o")]),
        path in "(/[abcd]){1,5}/?",
        at in any::<proptest::sample::Index>(),
        oddity in 0..7_u8,
    ) {
        let (_, table) = kept(entries);
        let letters = path.char_indices().filter(|(_, c)| *c != '/');
        let (at, _) = letters.clone().nth(at.index(letters.count())).unwrap();
        let (before, letter, after) = (&path[..at], &path[at..=at], &path[at + 1..]);
        let byte = path.as_bytes()[at];
        let odd = match oddity {
            0 => format!("{before}{}{after}", letter.to_uppercase()),
            1 => path.to_uppercase(),
            2 => format!("{before}{letter};x=1{after}"),
            3 => format!("{before}{letter}%3Bx{after}"),
            4 => format!("{before}%25{byte:02x}{after}"),
            5 if at > 1 => format!("{}%252f{letter}{after}", &path[..at - 1]),
            _ => format!("{before};x/{letter}{after}"),
        };
        prop_assume!(odd.starts_with('/'));
        let index = |path: &str| find(&table, &Method::GET, host, path).map(|(index, _)| index);
        // A path that has no route has no guard to bypass.
        let (found, plain) = (index(&odd), index(&path));
        if found.is_ok() && plain != Err(Denial::NoRoute) {
            prop_assert_eq!(found, plain, "{} {}", odd, path);
        }
    }

    #[test]
    fn in_their_order_the_first_that_covers_a_place_is_always_the_one_that_is_found(
        entries in proptest::collection::vec(entry(), 0..24),
        host in proptest::sample::select(vec![None, Some("x.y"), Some("z.x.y"), Some("w.z.x.y"), Some("o")]),
        path in "(/[abcd]){1,5}/?",
    ) {
        let (mut kept, table) = kept(entries);
        kept.sort_by(Matcher::order);
        let covers = |matcher: &Matcher| {
            let matcher = Matcher { methods: Methods::any(), ..matcher.clone() };
            get(&RouteTable::build(vec![(matcher, 0)]).unwrap(), &path).is_some()
        };
        let on_any_host = |matcher: &Matcher| Matcher { host: HostPattern::Any, ..matcher.clone() };
        let first = kept
            .iter()
            .filter(|matcher| matcher.host.covers(host))
            .find(|matcher| covers(&on_any_host(matcher)));
        let on_any_method = |matcher: &Matcher| Matcher { methods: Methods::any(), ..matcher.clone() };
        let all: Vec<_> =
            table.iter().map(|(matcher, _)| (on_any_method(matcher), matcher.clone())).collect();
        // Keeps one entry for each host and path, because methods are ignored.
        let mut places: Vec<(Matcher, Matcher)> = Vec::new();
        for (place, matcher) in all {
            if !places.iter().any(|(known, _)| known.includes(&place) && place.includes(known)) {
                places.push((place, matcher));
            }
        }
        let places = RouteTable::build(places).unwrap();
        let headers = HeaderMap::new();
        let head = Head { method: &Method::GET, host: host.map(Cow::Borrowed), port: None, path: Cow::Borrowed(&path), query: None, headers: &headers };
        let found = places.find(&head).ok().map(|found| found.entry);
        prop_assert_eq!(first.is_some(), found.is_some());
        if let (Some(first), Some(found)) = (first, found) {
            prop_assert!(first.includes(found) && found.includes(first), "{:?} {:?}", first, found);
        }
    }

    #[test]
    fn shadowed_routes_equal_those_of_a_pairwise_comparison(
        entries in proptest::collection::vec(entry(), 0..24),
    ) {
        let all = entries.iter().map(|(host, path, methods)| (matcher(host, path, methods), ()));
        let all: Vec<_> = all.collect();
        let conflicts = RouteTable::build(all.clone()).err().unwrap_or_default();
        let seconds: Vec<_> = conflicts.iter().map(|conflict| conflict.second).collect();
        let kept: Vec<_> = all.into_iter().enumerate().filter(|(index, _)| !seconds.contains(index)).collect();
        let table = RouteTable::build(kept.into_iter().map(|(_, entry)| entry).collect()).unwrap();

        let mut pairs = Vec::new();
        for spot in &table.spots {
            let specific = spot.entries[0];
            let place = &table.entries[specific].0;
            let answers = |method: &Method| table.by_method(spot, method).is_some();
            let takes_all = spot.entries.iter().any(|&index| table.entries[index].0.methods.is_any());
            for (general, (wider, ())) in table.entries.iter().enumerate() {
                let loses = !takes_all && (wider.methods.is_any() || !wider.methods.iter().all(answers));
                if loses && wider.includes(place) && !place.includes(wider) {
                    pairs.push((general, specific));
                }
            }
        }
        pairs.sort_unstable();
        prop_assert_eq!(table.shadowed(), pairs);
    }

    #[test]
    fn entries_always_conflict_with_the_first_that_has_one_of_their_methods(
        entries in proptest::collection::vec(entry(), 0..24),
    ) {
        let all = entries.iter().map(|(host, path, methods)| (matcher(host, path, methods), ()));
        let all: Vec<_> = all.collect();
        let same = |one: &Matcher, other: &Matcher| one.includes(other) && other.includes(one);
        let mut expected = Vec::new();
        for (second, (later, ())) in all.iter().enumerate() {
            let claims = |(earlier, ()): &(Matcher, ())| {
                same(earlier, later) && overlaps(&earlier.methods, &later.methods)
            };
            expected.extend(all[..second].iter().position(claims).map(|first| Conflict { first, second, by_fields: false }));
        }
        prop_assert_eq!(RouteTable::build(all).err().unwrap_or_default(), expected);
    }

    #[test]
    fn the_table_always_agrees_with_a_naive_model(
        entries in proptest::collection::vec(entry(), 0..24),
        requests in proptest::collection::vec((
            proptest::sample::select(vec![None, Some("x.y"), Some("y"), Some("z.x.y"), Some("q.x.y"), Some("w.z.x.y"), Some("o")]),
            "(/[abcd]){0,5}/?",
            proptest::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
        ), 1..24),
    ) {
        // Drops each entry that conflicts with an earlier entry.
        let mut kept: Vec<(&str, String, Vec<&str>)> = Vec::new();
        for entry in entries {
            kept.push(entry);
            let last = kept.len() - 1;
            let all = kept.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
            if RouteTable::build(all).is_err() {
                kept.remove(last);
            }
        }
        let all = kept.iter().map(|(host, path, methods)| (matcher(host, path, methods), ())).collect();
        let table = RouteTable::<()>::build(all).unwrap();

        for (host, path, method) in requests {
            let path = if path.is_empty() { "/" } else { &*path };
            let candidates: Vec<_> = kept.iter().enumerate().filter_map(|(index, (pattern, route, methods))| {
                let host_rank = model_host(pattern, host)?;
                let (kinds, values) = model_covers(route, path)?;
                Some(((host_rank, kinds), index, values, methods))
            }).collect();
            let best = candidates.iter().map(|(rank, ..)| rank).min();
            let winners: Vec<_> = candidates.iter().filter(|(rank, ..)| Some(rank) == best).collect();
            let takes = |methods: &[&str]| methods.is_empty() || methods.contains(&method.as_str())
                || (method == Method::HEAD && methods.contains(&"GET"));
            let found = find(&table, &method, host, path);
            match winners.iter().find(|(_, _, _, methods)| takes(methods)) {
                Some((_, index, values, _)) => prop_assert_eq!(found, Ok((*index, values.clone()))),
                None if winners.is_empty() => prop_assert_eq!(found, Err(Denial::NoRoute)),
                None => {
                    let Err(Denial::MethodNotAllowed(allow)) = found else {
                        return Err(TestCaseError::fail(format!("{found:?}")));
                    };
                    for (_, _, _, methods) in &winners {
                        prop_assert!(methods.iter().all(|method| allow.split(", ").any(|one| one == *method)));
                    }
                    prop_assert!(!allow.split(", ").any(|one| one == method.as_str()));
                }
            }
        }
    }
}

type Required<'e> = (&'e [&'e str], &'e [(&'static str, &'static str)]);

/// Builds a table for `/a` from methods and header fields.
fn by_fields(entries: &[Required<'_>]) -> Result<RouteTable<usize>, Vec<Conflict>> {
    let entry = |(nth, (methods, list)): (usize, &Required<'_>)| {
        let list = list.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        let fields = Fields::new(list.collect()).unwrap();
        (Matcher { fields, ..matcher("", "/a", methods) }, nth)
    };
    let mut all: Vec<_> = entries.iter().enumerate().map(entry).collect();
    all.push((matcher("", "/{*rest}", &[]), 99));
    RouteTable::build(all)
}

fn met(table: &RouteTable<usize>, method: &Method, fields: &[(&str, &str)]) -> Result<usize, Denial> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let head =
        Head { method, host: None, port: None, path: Cow::Borrowed("/a"), query: None, headers: &headers };
    table.find(&head).map(|found| *found.entry)
}

#[test]
fn more_header_fields_are_more_specific_and_none_falls_through() {
    let (one, two, both) = (&[("x-v", "1")][..], &[("x-v", "2")][..], &[("x-b", "y"), ("x-v", "2")][..]);
    let table = by_fields(&[(&[], one), (&["GET"], two), (&[], both)]).unwrap();
    let odd = Err(Denial::BadRequest(Malformed::RouteField));
    for (fields, found) in [
        (one, Ok(0)),
        (two, Ok(1)),
        (both, Ok(2)),
        (&[("x-b", "y"), ("x-v", "1")], Ok(0)),
        (&[], Err(Denial::NoRoute)),
        (&[("x-v", "3")], Err(Denial::NoRoute)),
        (&[("x-b", "y")], Err(Denial::NoRoute)),
        (&[("x-v", "2"), ("x-v", "2")], odd.clone()),
        (&[("x-v", "2"), ("x_v", "1")], odd.clone()),
        (&[("x_v", "2")], odd.clone()),
        (&[("x-v", "1, 2")], odd.clone()),
        (&[("x-v", "3, 2")], odd.clone()),
        (&[("x-v", "2;q=1")], odd.clone()),
        (&[("x-v", "\"2\"")], odd.clone()),
        (&[("x-b", "Y")], odd.clone()),
        (&[("x-v", "2"), ("connection", "x-v")], odd),
    ] {
        assert_eq!(met(&table, &Method::GET, fields), found, "{fields:?}");
    }
    let refused = met(&table, &Method::POST, two);
    assert_eq!(
        refused,
        Err(Denial::MethodNotAllowed(Arc::from("GET, HEAD"))),
        "a method chooses no laxer entry"
    );
    let table = by_fields(&[(&[], two), (&[], &[])]).unwrap();
    for (fields, found) in [(two, Ok(0)), (&[], Ok(1)), (&[("x-v", "3")], Ok(1)), (&[("x-v", "")], Ok(1))] {
        assert_eq!(met(&table, &Method::GET, fields), found, "{fields:?}");
    }
}

#[test]
fn entries_whose_header_fields_a_request_may_have_together_are_a_conflict() {
    let conflict = |entries: &[Required<'_>]| by_fields(entries).err().unwrap_or_default();
    let (v1, v2, b) = (&[("x-v", "1")][..], &[("x-v", "2")][..], &[("x-b", "y")][..]);
    let none: Vec<Conflict> = Vec::new();
    assert_eq!(conflict(&[(&[], v1), (&[], v2), (&[], &[])]), none);
    assert_eq!(conflict(&[(&[], v1), (&[], &[("x-v", "1"), ("x-b", "y")])]), none);
    assert_eq!(conflict(&[(&["GET"], v1), (&["POST"], v1)]), none);
    assert_eq!(conflict(&[(&["GET"], v1), (&[], v1)]), [Conflict { first: 0, second: 1, by_fields: false }]);
    let by_fields = [Conflict { first: 0, second: 1, by_fields: true }];
    assert_eq!(conflict(&[(&[], v1), (&[], b)]), by_fields);
    assert_eq!(conflict(&[(&["GET"], v1), (&["POST"], b)]), by_fields, "a method chooses no entry");
    assert_eq!(conflict(&[(&[], v1), (&[], &[("x-b", "y"), ("x-v", "2")])]), none);
}

proptest! {
    #[test]
    fn a_table_with_header_fields_finds_what_a_naive_search_finds(
        sets in proptest::collection::vec(proptest::collection::btree_map("x-[ab]", "[12]", 0..3), 1..5),
        sent in proptest::collection::vec(("x[-_][ab]", "[12]|1,2|2;x"), 0..4),
    ) {
        let entry = |set: &std::collections::BTreeMap<String, String>| {
            let list = set.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            Matcher { fields: Fields::new(list).unwrap(), ..matcher("", "/a", &[]) }
        };
        let entries = sets.iter().map(entry).enumerate().map(|(nth, matcher)| (matcher, nth)).collect();
        let Ok(table) = RouteTable::build(entries) else { return Ok(()) };
        let fields: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        let has = |name: &String, value: &String| fields.contains(&(name, value));
        let fitting: Vec<usize> =
            (0..sets.len()).filter(|nth| sets[*nth].iter().all(|(name, value)| has(name, value))).collect();
        match met(&table, &Method::GET, &fields) {
            Ok(found) => {
                prop_assert!(fitting.contains(&found));
                prop_assert!(fitting.iter().all(|other| sets[*other].len() <= sets[found].len()));
                let named: std::collections::BTreeSet<&String> = sets.iter().flat_map(|set| set.keys()).collect();
                for name in named {
                    let folded = name.replace('-', "_");
                    prop_assert!(fields.iter().filter(|(sent, _)| sent.replace('-', "_") == folded).count() <= 1);
                }
            }
            Err(Denial::NoRoute) => prop_assert!(fitting.is_empty()),
            Err(denial) => prop_assert_eq!(denial, Denial::BadRequest(Malformed::RouteField)),
        }
    }
}
