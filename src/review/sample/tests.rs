//! Tests that sample requests and callers are sufficient.

use super::*;
use crate::explain::Examiner;
use crate::keyring::MissingKey;

/// Compiles a policy: an issuer, an echo upstream and `rest`.
pub(in crate::review) fn policy(rest: &str) -> Policy {
    let text = format!(
        "[[issuer]]\nissuer = \"https://id.example.com/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]\n\
         secret = \"0123456789abcdef0123456789abcdef\"\n[upstream.echo]\nbuiltin = \"echo\"\n{rest}"
    );
    let loaded = crate::config::load_text("gateway.toml", text, ".".into(), Vec::new());
    crate::policy::compile(&loaded.unwrap(), MissingKey::Ephemeral).unwrap().policy
}

/// Returns the callers that the policies distinguish: without a token, with a token without grants, and with exactly
/// the grants of each rule.
fn callers(policies: &[&Policy]) -> Vec<Caller> {
    let mut callers = vec![Caller::Nobody, Caller::WithToken(Grants::default())];
    let mut known: BTreeSet<Caller> = callers.iter().cloned().collect();
    for policy in policies {
        for route in policy.routes.iter() {
            for grants in minimal_grants(policy, route) {
                let caller = Caller::WithToken(grants);
                if known.insert(caller.clone()) {
                    callers.push(caller);
                }
            }
        }
    }
    callers
}

fn route(path: &str, rest: &str) -> String {
    format!("[[route]]\npath = \"{path}\"\nupstream = \"echo\"\n{rest}\n")
}

#[test]
fn each_route_has_a_request_that_it_covers_itself_where_there_is_one() {
    let routes = [
        ("/orders/{id}", ""),
        ("/orders/sample", ""),
        ("/orders/{*rest}", ""),
        ("/{*rest}", "host = \"*.example.com\""),
        ("/x%20y", "host = \"api.example.com\"\nmethods = [\"GET\", \"PURGE\"]"),
    ];
    let policy = policy(&routes.map(|(path, rest)| route(path, rest)).concat());
    let samples: Vec<_> = requests(&policy).collect();
    let url = |route: usize| &*samples.iter().find(|sample| sample.route == route).unwrap().url;
    assert_eq!(url(0), "https://sample.invalid/orders/another-sample");
    assert_eq!(url(1), "https://sample.invalid/orders/sample");
    assert_eq!(url(2), "https://sample.invalid/orders/sample/sample");
    assert_eq!(url(3), "https://sample-host.example.com/sample");
    assert_eq!(url(4), "https://api.example.com/x%20y");
    let examiner = Examiner::new(&policy);
    for sample in &samples {
        let question = Question::new(sample.method.as_str(), &sample.url).unwrap();
        assert_eq!(examiner.verdict(&question).route, Some(sample.route), "{sample:?}");
    }
    let methods =
        |route| samples.iter().filter(move |sample| sample.route == route).map(|s| s.method.as_str());
    assert_eq!(methods(4).collect::<Vec<_>>(), ["GET", "HEAD", "PURGE"]);
    assert!(methods(0).any(|method| method == "PURGE"), "a route for all methods is asked with it too");
    assert_eq!(samples[0].covers, "/orders/{id}");
    assert_eq!(samples.last().unwrap().covers, "api.example.com/x%20y");
}

#[test]
fn a_sample_that_meets_a_rule_passes_and_every_weaker_one_fails() {
    let policy = policy(
        &[
            route("/a", "roles = [\"admin\", \"clerk\"]\nall_roles = [\"staff\"]\nscopes = [\"x\", \"y\"]"),
            route(
                "/t/{tenant}/{*rest}",
                "claims = { \"org.tenant\" = \"{tenant}\", level = 7, path = \"{rest}\" }",
            ),
            route("/u/{user}", "claims = { sub = \"{user}\" }"),
            route("/fresh", "fresh = \"10m\""),
            route("/bound", "require_bound = true"),
            route("/open", "access = \"public\""),
        ]
        .concat(),
    );
    let callers = callers(&[&policy, &policy]);
    let names: Vec<_> = callers.iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "without a token",
            "any token",
            "role admin and role staff and scope x and scope y",
            "role clerk and role staff and scope x and scope y",
            "claim level = 7 and claim org.tenant as in the path and claim path as in the path",
            "claim sub as in the path",
            "a fresh login",
            "a bound token",
        ]
    );
    let examiner = Examiner::new(&policy);
    for sample in requests(&policy) {
        let ask = |caller: &Caller| {
            let question = Question::new(sample.method.as_str(), &sample.url).unwrap();
            examiner.verdict(&caller.question(&policy, question)).reaches()
        };
        let own = minimal_grants(&policy, &policy.routes[sample.route]);
        for grants in &own {
            assert!(ask(&Caller::WithToken(grants.clone())), "{sample:?} {grants}");
        }
        let others = callers.iter().filter(|caller| match caller {
            Caller::Nobody => true,
            Caller::WithToken(grants) => !own.iter().any(|own| grants.includes(own)),
        });
        for caller in others {
            assert_eq!(ask(caller), sample.covers == "/open", "{sample:?} {caller}");
        }
    }
}
