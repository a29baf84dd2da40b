//! Tests of comparisons between policies.

use super::super::sample::tests::policy;
use super::*;
use proptest::prelude::*;

fn route(path: &str, rest: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\nmethods = [\"GET\"]\n{rest}\n")
}

fn between(old: &str, new: &str) -> Difference {
    difference(&policy(old), &policy(new))
}

/// Formats each change as caller, methods, path, old result and new result.
fn read(changes: &[Change]) -> Vec<String> {
    let text = |change: &Change| {
        let Change { caller, covers, before, after, .. } = change;
        format!("{caller} | {} {covers} | {before} | {after}", change.methods.join(","))
    };
    changes.iter().map(text).collect()
}

#[test]
fn a_role_more_gains_and_a_role_less_loses() {
    let (one, both) = (route("/a", "roles = [\"admin\"]"), route("/a", "roles = [\"admin\", \"clerk\"]"));
    let found = between(&one, &both);
    let gain = "role clerk | GET,HEAD /a | refused by \"/a\": insufficient_role | passed by \"/a\", to echo";
    assert_eq!(read(&found.gains), [gain]);
    assert!(found.losses.is_empty() && found.moves.is_empty(), "{found}");
    let found = between(&both, &one);
    assert_eq!(read(&found.losses).len(), 1);
    assert!(found.losses[0].caller == "role clerk" && found.gains.is_empty(), "{found}");
}

#[test]
fn a_dropped_requirement_is_a_gain_for_callers_without_it() {
    let guarded = route("/a", "roles = [\"admin\"]\nscopes = [\"a:read\"]");
    for (new, who) in [
        (route("/a", "scopes = [\"a:read\"]"), "scope a:read"),
        (route("/a", "roles = [\"admin\"]"), "role admin"),
        (route("/a", ""), "any token"),
        (route("/a", "access = \"public\""), "everyone, with or without a token"),
        (format!("{guarded}mode = \"shadow\""), "everyone, with or without a token"),
    ] {
        let found = between(&guarded, &new);
        assert_eq!(found.gains.iter().map(|gain| &*gain.caller).collect::<Vec<_>>(), [who], "{found}");
        assert!(found.losses.is_empty(), "{found}");
    }
    let (bound, any) = (route("/a", "require_bound = true"), route("/a", ""));
    let found = between(&bound, &any);
    assert_eq!((&*found.gains[0].caller, found.losses.len()), ("any token", 0), "{found}");
    let found = between(&any, &bound);
    assert_eq!((&*found.losses[0].caller, found.gains.len()), ("any token", 0), "{found}");
    let by_rule =
        |rest: &str| format!("[rule.own]\nroles = [\"a\"]\n{rest}\n{}", route("/a", "rule = \"own\""));
    let found = between(&by_rule(""), &by_rule("require_bound = true"));
    assert_eq!((&*found.losses[0].caller, found.gains.len()), ("role a", 0), "{found}");
    let found = between(&route("/a", ""), &route("/a", "access = \"public\""));
    assert_eq!(found.gains[0].caller, "without a token", "others passed before");
}

#[test]
fn a_route_for_a_header_is_compared_with_and_without_it() {
    let (plain, version) = (route("/a", "roles = [\"admin\"]"), "headers = { X-V = \"2\" }");
    let open = route("/a", &format!("name = \"v2\"\naccess = \"public\"\n{version}"));
    let found = between(&plain, &format!("{plain}{open}"));
    let gain = "everyone, with or without a token | GET,HEAD /a with x-v: 2 | refused by \"/a\": missing_token | passed by \"v2\", to echo";
    assert_eq!((read(&found.gains), found.losses.len()), (vec![gain.to_owned()], 0), "{found}");
    assert!(found.gains[0].example.ends_with("/a with x-v: 2"), "{found}");
    // The route for the header rejects requests to `/a` without the header. Without that route, the wider route covers
    // them.
    let (wide, only) = (route("/{*r}", "access = \"public\""), route("/a", version));
    let found = between(&format!("{wide}{only}"), &wide);
    let places: Vec<_> = found.gains.iter().map(|gain| (&*gain.caller, &*gain.covers)).collect();
    assert_eq!(
        places,
        [("everyone, with or without a token", "/a"), ("without a token", "/a with x-v: 2")],
        "{found}"
    );
}

#[test]
fn an_excluded_role_is_a_loss_for_those_who_have_it() {
    let (open, closed) = (route("/a", ""), route("/a", "not_roles = [\"banned\"]"));
    let callers = |changes: &[Change]| changes.iter().map(|change| change.caller.clone()).collect::<Vec<_>>();
    let found = between(&open, &closed);
    assert_eq!((callers(&found.losses), found.gains.len()), (vec!["role banned".to_owned()], 0), "{found}");
    let found = between(&closed, &open);
    assert_eq!((callers(&found.gains), found.losses.len()), (vec!["role banned".to_owned()], 0), "{found}");
    let found = between(&route("/a", "roles = [\"admin\"]"), &closed);
    assert_eq!(callers(&found.gains), ["any token without role banned"], "{found}");
    assert_eq!(callers(&found.losses), ["role admin and role banned"], "{found}");
}

#[test]
fn each_issuer_is_asked_about_where_a_rule_names_one() {
    let second = "[[issuer]]\nissuer = \"https://second.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
        secret = \"f123456789abcdef0123456789abcdef\"\n";
    let of = |issuers: &str| format!("{second}{}", route("/a", issuers));
    let callers = |changes: &[Change]| changes.iter().map(|change| change.caller.clone()).collect::<Vec<_>>();
    let one = "issuers = [\"https://id.example.com/\"]";
    let both = "issuers = [\"https://id.example.com/\", \"https://second.example.com/\"]";
    let other = "issuers = [\"https://second.example.com/\"]";
    let token_of_second = vec!["a token of https://second.example.com/".to_owned()];
    for (old, new, gains, losses) in [
        (one, "", token_of_second.clone(), vec![]),
        (one, both, token_of_second.clone(), vec![]),
        ("", one, vec![], token_of_second.clone()),
        (one, other, token_of_second, vec!["a token of https://id.example.com/".to_owned()]),
        ("", both, vec![], vec![]),
    ] {
        let found = between(&of(old), &of(new));
        assert_eq!((callers(&found.gains), callers(&found.losses)), (gains, losses), "{old} {new}: {found}");
    }
}

#[test]
fn a_route_that_comes_goes_or_is_covered_by_another_shows() {
    let (a, rest) = (route("/a/{id}", "roles = [\"admin\"]"), route("/a/{*rest}", ""));
    let found = between(&rest, &format!("{rest}{a}"));
    let loss = "any token | GET,HEAD /a/{id} | passed by \"/a/{*rest}\", to echo | refused by \"/a/{id}\": insufficient_role";
    assert_eq!(read(&found.losses), [loss]);
    let moved = "all callers who pass | GET,HEAD /a/{id} | passed by \"/a/{*rest}\", to echo | passed by \"/a/{id}\", to echo";
    assert_eq!(read(&found.moves), [moved]);
    let found = between(&format!("{rest}{a}"), &a);
    assert_eq!(read(&found.losses).len(), 1, "{found}");
    assert_eq!(found.losses[0].after.route, None);
    let found = between(&a, &format!("{a}{rest}"));
    assert_eq!((found.gains.len(), &*found.gains[0].covers), (1, "/a/{*rest}"), "{found}");
}

#[test]
fn methods_are_listed_separately_where_the_verdicts_differ() {
    let open = "[[route]]\npath = \"/a\"\nupstream = \"echo\"\n";
    let found = between(&route("/a", ""), open);
    assert_eq!(found.gains.len(), 1, "{found}");
    assert_eq!(found.gains[0].methods, ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
}

#[test]
fn gains_are_listed_first() {
    let (open, closed) = ("access = \"public\"", "roles = [\"admin\"]");
    let old = route("/a", open) + &route("/b", closed);
    let new = route("/a", closed) + &route("/b", open);
    let text = between(&old, &new).to_string();
    assert!(text.starts_with("GAINS ACCESS (1)\n  everyone"), "{text}");
    assert!(text.contains("\nloses access (1)\n"), "{text}");
    assert_eq!(between(&old, &old).to_string(), "nothing changes\n");
}

const PATHS: [&str; 7] = ["/a", "/a/{x}", "/a/{*r}", "/{*r}", "/b/{y}/c", "/b/{*r}", "/a/sample"];

/// The settings of a generated route.
type Made = (u8, u8, u8, u8, u8, bool, bool, bool, (u8, u8, bool));

fn made(routes: &[Option<Made>]) -> String {
    let mut text = String::new();
    let list = |names: &[&str], mask: u8| {
        let names = names.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
        let names: Vec<_> = names.map(|(_, name)| format!("{name:?}")).collect();
        format!("[{}]", names.join(", "))
    };
    for (path, made) in PATHS.iter().zip(routes) {
        let Some((access, methods, roles, all, scopes, claim, fresh, shadow, (none, any, bound))) = *made
        else {
            continue;
        };
        text += &format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\n");
        text += &format!("methods = {}\n", list(&["GET", "POST", "PURGE"], methods));
        match access {
            0 => text += "access = \"public\"\n",
            _ => {
                text += if access == 1 { "access = \"optional\"\n" } else { "" };
                text += &format!("roles = {}\n", list(&["a", "b", "c"], roles));
                text += &format!("all_roles = {}\n", list(&["a", "d"], all));
                text += &format!("scopes = {}\n", list(&["x", "y"], scopes));
                // No rule requires `banned` or `e`, so a rule never requires and excludes the same role.
                text += &format!("not_roles = {}\n", list(&["banned", "e"], none));
                text += &format!("any_scopes = {}\n", list(&["x", "z"], any));
                text += match (claim, fresh) {
                    (true, false) => "claims = { tenant = \"acme\" }\n",
                    (true, true) => "claims = { tenant = [\"acme\", \"other\"] }\n",
                    (false, _) => "",
                };
                text += if fresh { "fresh = true\n" } else { "" };
                text += if bound { "require_bound = true\n" } else { "" };
            }
        }
        text += if shadow { "mode = \"shadow\"\n" } else { "" };
    }
    text + "[[route]]\npath = \"/always\"\nupstream = \"echo\"\n"
}

fn policies() -> impl Strategy<Value = String> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), (0..8u8, 0..8u8, any::<bool>()));
    let one = (0..4u8, 0..8u8, 0..8u8, 0..4u8, 0..4u8, flags);
    let one =
        one.prop_map(|(access, methods, roles, all, scopes, (claim, fresh, shadow, (none, any, bound)))| {
            // Most routes have few requirements, so that many requests pass.
            (
                access,
                methods,
                roles,
                if all == 3 { 1 } else { 0 },
                scopes & 1,
                claim && fresh,
                fresh && (!claim || shadow),
                shadow && claim,
                (if none < 4 { none } else { 0 }, if any < 3 { any } else { 0 }, bound && !claim),
            )
        });
    proptest::collection::vec(proptest::option::of(one), PATHS.len()).prop_map(|routes| made(&routes))
}

fn all_grants() -> impl Strategy<Value = Caller> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let grants = (0..64u8, 0..8u8, flags).prop_map(|(roles, scopes, (claim, fresh, bound))| {
        let some = |names: &[&str], mask: u8| {
            let names = names.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
            names.map(|(_, name)| (*name).to_owned()).collect()
        };
        Caller::WithToken(Grants {
            roles: some(&["a", "b", "c", "d", "banned", "e"], roles),
            scopes: some(&["x", "y", "z"], scopes),
            claims: claim
                .then(|| {
                    let value = sample::ClaimGrant::Value("\"acme\"".to_owned());
                    ("tenant".to_owned(), BTreeSet::from([value]))
                })
                .into_iter()
                .collect(),
            issuer: None,
            fresh,
            bound,
        })
    });
    prop_oneof![1 => Just(Caller::Nobody), 5 => grants]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_never_differs_from_itself(text in policies()) {
        let found = between(&text, &text);
        prop_assert!(found.is_empty(), "{}", found);
    }

    #[test]
    fn a_gain_in_one_direction_is_a_loss_in_the_other(one in policies(), other in policies()) {
        let set = |changes: &[Change], swapped: bool| -> BTreeSet<String> {
            let text = |change: &Change| {
                let methods: BTreeSet<_> = change.methods.iter().collect();
                let url = change.example.split_once(' ').map(|(_, url)| url);
                let (before, after) =
                    if swapped { (&change.after, &change.before) } else { (&change.before, &change.after) };
                format!("{} {methods:?} {url:?} {before} {after}", change.caller)
            };
            changes.iter().map(text).collect()
        };
        let (there, back) = (between(&one, &other), between(&other, &one));
        prop_assert_eq!(set(&there.gains, false), set(&back.losses, true));
        prop_assert_eq!(set(&there.losses, false), set(&back.gains, true));
    }

    #[test]
    fn every_gain_and_loss_is_reported(one in policies(), other in policies(), caller in all_grants()) {
        let (old, new) = (policy(&one), policy(&other));
        let found = difference(&old, &new);
        let comparison = Comparison { old: Examiner::new(&old), new: Examiner::new(&new), now: Now::read() };
        for place in places(&old, &new) {
            for method in &place.methods {
                let (before, after) = comparison.ask(method, &place, &caller).unwrap();
                let text = |changes: &[Change]| {
                    changes.iter().any(|change| {
                        change.example.ends_with(&format!(" {}{}", place.url, with_fields(&place.fields)))
                            && change.methods.iter().any(|known| known == method.as_str())
                    })
                };
                match (before.reaches(), after.reaches()) {
                    (false, true) => prop_assert!(text(&found.gains), "{} {} {}: {}", caller, method, place.url, found),
                    (true, false) => prop_assert!(text(&found.losses), "{} {} {}: {}", caller, method, place.url, found),
                    (true, true) | (false, false) => {}
                }
            }
        }
    }
}

#[test]
fn a_request_that_another_route_gets_is_compared_although_it_is_no_sample_of_either_route() {
    let open = route("/x/lit", "access = \"public\"");
    let guarded = "[[route]]\nname = \"guarded\"\nhost = \"c.test\"\npath = \"/x/{p}\"\nupstream = \"echo\"\nmethods = [\"GET\"]\n\
                   roles = [\"admin\"]\n";
    let both = format!("{open}{guarded}");
    let found = between(&both, &open);
    let gain = "everyone, with or without a token | GET,HEAD c.test/x/lit | refused by \"guarded\": missing_token | \
                passed by \"/x/lit\", to echo";
    assert!(read(&found.gains).contains(&gain.to_owned()), "{found}");
    let found = between(&open, &both);
    assert_eq!(read(&found.gains).len(), 1, "admins at the other paths of the route: {found}");
    assert!(found.losses.iter().any(|loss| loss.covers == "c.test/x/lit"), "{found}");

    // A route refuses the methods that it does not list, for which a wider route is then not asked.
    let deletes = "[[route]]\nname = \"all\"\npath = \"/x/{p}\"\nupstream = \"echo\"\nmethods = [\"DELETE\"]\naccess = \"public\"\n";
    let found = between(&format!("{open}{deletes}"), deletes);
    let gain = "everyone, with or without a token | DELETE /x/lit | refused: method_not_allowed | passed by \"all\", to echo";
    assert_eq!(read(&found.gains), [gain], "{found}");
    assert!(!found.is_incomplete);

    // The sample of the removed route goes to a third route.
    let third = "[[route]]\nname = \"third\"\nhost = \"*.test\"\npath = \"/x/{p}\"\nupstream = \"echo\"\naccess = \"public\"\n";
    let wide = deletes.replace("/x/{p}", "/x/{*r}");
    let others = format!("{third}{wide}");
    let removed = "[[route]]\nname = \"removed\"\nhost = \"c.test\"\npath = \"/x/{*r}\"\nupstream = \"echo\"\nmethods = [\"PUT\"]\n";
    let found = between(&format!("{others}{removed}"), &others);
    let outcomes: Vec<_> = found.losses.iter().map(|loss| &*loss.after.outcome).collect();
    assert_eq!(outcomes, ["method_not_allowed"], "{found}");
}
