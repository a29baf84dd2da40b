//! Rate limits: by address before a signature is checked, by caller after that.

use crate::kit::{Answer, Portcullis, Request, Upstream, token};
use crate::{gateway, policy};

fn limited(by: &str) -> String {
    format!(
        r#"
        [rate_limit.few]
        by    = "{by}"
        rate  = "1/m"
        burst = 3

        [[route]]
        path        = "/limited"
        upstream    = "app"
        access      = "optional"
        rate_limits = ["few"]

        [[route]]
        path        = "/too"
        upstream    = "app"
        access      = "optional"
        rate_limits = ["few"]

        [[route]]
        path        = "/free"
        upstream    = "app"
        access      = "optional"
        "#
    )
}

/// Sends up to 10 requests until the limit refuses one. Returns how many passed.
#[track_caller]
fn passed(mut ask: impl FnMut() -> Answer) -> usize {
    for count in 0..10 {
        let answer = ask();
        match answer.status {
            429 => return count,
            _ => assert_eq!(answer.status, 200, "{answer:#?}"),
        }
    }
    10
}

#[test]
fn a_burst_passes_and_later_requests_get_retry_after() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("client_ip"));
    for left in [2, 1, 0] {
        let answer = Request::get("/limited").to(gateway.http());
        answer.is(200);
        let limit = answer.header("ratelimit").expect("an answer under a limit says what is left");
        assert!(limit.contains(&format!("r={left}")), "{limit}");
        let policy = answer.header("ratelimit-policy").expect("and under which policy");
        assert!(policy.contains("few") && policy.contains("q="), "{policy}");
    }
    let answer = Request::get("/limited").to(gateway.http());
    answer.is_refusal(429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().expect("whole seconds");
    assert!((1..=60).contains(&wait), "one a minute: {wait}");
    assert!(answer.header("ratelimit").unwrap().contains("r=0"));
    assert_eq!(upstream.requests().len(), 3);
    // A route without the limit is not limited. Routes with the same limit share its budget.
    assert!(Request::get("/free").to(gateway.http()).is(200).header("ratelimit").is_none());
    Request::get("/too").to(gateway.http()).is_refusal(429, "rate_limited");
}

#[test]
fn a_request_with_a_refused_token_counts_by_address() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("client_ip"));
    for _ in 0..3 {
        let forged = format!("{}x", token("ada"));
        Request::get("/limited").bearer(forged).to(gateway.http()).is_refusal(401, "malformed_token");
    }
    // The limit now refuses even a valid token, before its signature is checked.
    Request::get("/limited").bearer(token("ada")).to(gateway.http()).is_refusal(429, "rate_limited");
    upstream.saw_nothing();
}

#[test]
fn a_subject_has_a_budget_of_its_own_whatever_token_it_shows() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("subject"));
    let ask = |subject: &str| Request::get("/limited").bearer(token(subject)).to(gateway.http());
    assert_eq!(passed(|| ask("ada")), 3);
    assert_eq!(passed(|| ask("bob")), 3, "another's budget is untouched");
    // A forged token cannot use up a subject's budget.
    for _ in 0..5 {
        let forged = format!("{}x", token("eve"));
        Request::get("/limited").bearer(forged).to(gateway.http()).is_refusal(401, "malformed_token");
    }
    assert_eq!(passed(|| ask("eve")), 3);
}

#[test]
fn a_limit_by_route_counts_everybody_on_each_route() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("route"));
    assert_eq!(passed(|| Request::get("/limited").to(gateway.http())), 3);
    Request::get("/limited").bearer(token("ada")).to(gateway.http()).is_refusal(429, "rate_limited");
    assert_eq!(passed(|| Request::get("/too").to(gateway.http())), 3);
}

#[test]
fn a_limit_by_header_counts_each_value() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("header:X-Api-Key"));
    let ask = |key: &str| Request::get("/limited").header("X-Api-Key", key).to(gateway.http());
    assert_eq!(passed(|| ask("one")), 3);
    assert_eq!(passed(|| ask("two")), 3);
    ask("one").is_refusal(429, "rate_limited");
}

#[test]
fn a_limit_by_claim_counts_each_value() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("claim:tenant"));
    let ask = |subject: &str, tenant: &str| {
        let token = token(subject).claim("tenant", tenant.into());
        Request::get("/limited").bearer(token).to(gateway.http())
    };
    assert_eq!(passed(|| ask("ada", "acme")), 3);
    ask("bob", "acme").is_refusal(429, "rate_limited");
    assert_eq!(passed(|| ask("bob", "globex")), 3);
}

#[test]
fn a_stranger_cannot_choose_the_address_that_is_counted_and_a_trusted_proxy_can() {
    let upstream = Upstream::start();
    let asking = |gateway: &Portcullis| {
        let mut last = 0;
        passed(|| {
            last += 1;
            Request::get("/limited").header("X-Forwarded-For", &format!("192.0.2.{last}")).to(gateway.http())
        })
    };
    let stranger = gateway(&upstream, &limited("client_ip"));
    assert_eq!(asking(&stranger), 3);
    let trusting = format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}", limited("client_ip"));
    let trusted = gateway(&upstream, &trusting);
    assert_eq!(asking(&trusted), 10);
}

#[test]
fn the_addresses_of_one_ipv6_network_share_a_budget() {
    let upstream = Upstream::start();
    let trusting = format!("[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{}", limited("client_ip"));
    let gateway = gateway(&upstream, &trusting);
    let ask =
        |address: String| Request::get("/limited").header("X-Forwarded-For", &address).to(gateway.http());
    let mut last = 0;
    let within = |last: u32| format!("2001:db8:1:2::{last:x}");
    assert_eq!(
        passed(|| {
            last += 1;
            ask(within(last))
        }),
        3,
        "one host has a /64 to choose from"
    );
    ask("2001:db8:1:3::1".to_owned()).is(200);
}

#[test]
fn budgets_are_shared_by_all_cores() {
    let upstream = Upstream::start();
    let gateway =
        Portcullis::with(&format!("[server]\nworkers = 4\n{}", policy(&upstream, &limited("client_ip"))));
    let gateway = gateway.start();
    // Each request uses a new connection, and the kernel spreads connections over the cores.
    let answers: Vec<_> = (0..40).map(|_| Request::get("/limited").to(gateway.http()).status).collect();
    assert_eq!(answers.iter().filter(|status| **status == 200).count(), 3, "{answers:?}");
}

const TIERS: &str = r#"
[rate_limit.api]
by         = "subject"
rate       = "1/h"
rate_claim = "plan"
rates      = { gold = "4/h", silver = "2/h" }

[[route]]
path        = "/"
upstream    = "app"
rate_limits = ["api"]
"#;

#[test]
fn the_plan_in_the_token_selects_the_rate_and_any_other_plan_has_the_default() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, TIERS);
    for (number, (plan, count)) in [
        (serde_json::json!("gold"), 4),
        (serde_json::json!("silver"), 2),
        (serde_json::json!("GOLD"), 1),
        (serde_json::json!("diamond"), 1),
        (serde_json::json!(["gold"]), 1),
        (serde_json::json!(null), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let token = token(&format!("u{number}")).claim("plan", plan.clone()).sign();
        let ask = || Request::get("/").bearer(&token).to(gateway.http());
        let first = ask();
        let policy = first.header("ratelimit-policy").unwrap().to_owned();
        assert!(policy.contains(&format!("\"api\";q={count};")), "{plan}: {policy}");
        assert_eq!(1 + passed(ask), count, "{plan}");
    }
    assert_eq!(gateway.metric("portcullis_rate_limited_total{limit=\"api\"}"), Some(6));
    let claims = |plan: &str| format!("{{\"sub\":\"ada\",\"plan\":\"{plan}\"}}");
    for (plan, text) in [
        ("gold", "api: 4 at once, then one each 900s, because claim plan = \"gold\", by subject ada"),
        ("none", "api: 1 at once, then one each 3600s, the default of claim plan, by subject ada"),
    ] {
        let explained = crate::kit::portcullis::command(
            gateway.dir(),
            &["explain", "GET", "http://h/", "--claims", &claims(plan)],
        );
        assert!(explained.stdout.contains(text), "{}", explained.stdout);
    }
}

#[test]
fn a_reload_keeps_the_counts_of_each_plan() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, TIERS);
    let token = token("ada").claim("plan", serde_json::json!("silver")).sign();
    let ask = || Request::get("/").bearer(&token).to(gateway.http());
    assert_eq!(passed(ask), 2);
    let more = TIERS.replace("gold = \"4/h\"", "gold = \"9/h\"");
    crate::kit::portcullis::write_policy(gateway.dir(), &policy(&upstream, &more));
    crate::reload::reload(&gateway);
    assert_eq!(passed(ask), 0, "the rate of silver did not change");
    let more = TIERS.replace("silver = \"2/h\"", "silver = \"3/h\"");
    crate::kit::portcullis::write_policy(gateway.dir(), &policy(&upstream, &more));
    crate::reload::reload(&gateway);
    assert_eq!(passed(ask), 3);
}
