//! The policy is reloaded while the gateway serves requests.

use crate::kit::account::{self, AUTHORITY, login, post};
use crate::kit::dir::Dir;
use crate::kit::portcullis::{command, completed};
use crate::kit::upstream::{After, Gate};
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, eventually, forge, token};
use crate::{PUBLIC, gateway, policy};
use serde_json::json;
use std::os::unix::fs::symlink;

const RELOADED: &str = "the policy was reloaded";
const REFUSED: &str = "the policy was not reloaded; the current one stays in force";

/// Requests a reload at the admin listener.
#[track_caller]
pub fn reload(gateway: &Portcullis) -> Answer {
    Request::post("/reload", "").host("localhost").to(gateway.admin())
}

/// Returns a policy with a single public route for this path.
fn only(upstream: &Upstream, path: &str) -> String {
    let route = format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\naccess = \"public\"\n");
    completed(&policy(upstream, &route))
}

#[track_caller]
fn serves_only(gateway: &Portcullis, served: &str, other: &str) {
    Request::get(served).to(gateway.http()).is(200);
    Request::get(other).to(gateway.http()).is_refusal(404, "no_route");
}

/// Returns the value of one sample. `name` includes the labels.
#[track_caller]
fn sample(gateway: &Portcullis, name: &str) -> u64 {
    let text = Request::get("/metrics").to(gateway.admin()).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no sample {name}: {text}")).parse().unwrap()
}

fn reloads(gateway: &Portcullis, outcome: &str) -> u64 {
    sample(gateway, &format!("portcullis_policy_reloads_total{{outcome=\"{outcome}\"}}"))
}

fn generation(gateway: &Portcullis) -> u64 {
    sample(gateway, "portcullis_policy_generation")
}

fn verbose(gateway: &Portcullis) -> String {
    Request::get("/readyz?verbose").to(gateway.admin()).is(200).text()
}

fn reported(gateway: &Portcullis, message: &str) -> usize {
    gateway.log().iter().filter(|line| line["message"] == message).count()
}

#[test]
fn a_reload_by_signal_and_by_request_shows_in_the_log_the_metrics_and_the_answer() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "[[route]]\npath = \"/a\"\nupstream = \"app\"\naccess = \"public\"\n");
    serves_only(&gateway, "/a", "/b");
    assert!(verbose(&gateway).contains("policy: generation 1, loaded 20"), "{}", verbose(&gateway));

    gateway.dir().replace("gateway.toml", only(&upstream, "/b"));
    let answer = reload(&gateway);
    let report = answer.is(200).json();
    assert_eq!((&report["outcome"], &report["generation"]), (&json!("reloaded"), &json!(2)), "{report:#}");
    assert!(report["warnings"].is_array(), "{report:#}");
    serves_only(&gateway, "/b", "/a");
    gateway.wait_log("it is logged", |line| line["message"] == RELOADED && line["generation"] == 2);
    assert_eq!((reloads(&gateway, "reloaded"), reloads(&gateway, "refused")), (1, 0));
    assert_eq!((generation(&gateway), sample(&gateway, "portcullis_policy_last_reload_ok")), (2, 1));
    let loaded = sample(&gateway, "portcullis_policy_loaded_timestamp_seconds");
    assert!(forge::now().abs_diff(loaded as i64) < 60, "{loaded}");
    assert!(verbose(&gateway).contains("policy: generation 2, loaded 20"), "{}", verbose(&gateway));

    gateway.dir().replace("gateway.toml", only(&upstream, "/a"));
    gateway.signal("HUP");
    eventually("the signal reloads", || generation(&gateway) == 3);
    serves_only(&gateway, "/a", "/b");
}

#[test]
fn gateways_show_the_same_digest_exactly_if_they_enforce_the_same_policy() {
    let upstream = Upstream::start();
    let route = "[[route]]\npath = \"/a\"\nupstream = \"app\"\naccess = \"public\"\n";
    let version = |version: &str| format!("[policy]\nversion = \"{version}\"\n{}", policy(&upstream, route));
    let gateways = ["7", "8"].map(|name| Portcullis::with(&version(name)).start());
    let digest = |gateway: &Portcullis| {
        let lines = verbose(gateway);
        let digest = lines.split("digest ").nth(1).unwrap_or_else(|| panic!("{lines}"));
        digest.split([',', '\n']).next().unwrap().to_owned()
    };
    let [first, second] = gateways.each_ref().map(digest);
    assert_eq!(first, second, "the listeners and the version do not count");
    assert!(verbose(&gateways[1]).contains(", version 8\n"), "{}", verbose(&gateways[1]));
    let labels = format!("portcullis_policy_info{{digest=\"{first}\",version=\"7\"}}");
    assert_eq!(sample(&gateways[0], &labels), 1);
    assert_eq!(command(gateways[0].dir(), &["config", "digest"]).stdout.trim(), first);

    gateways[1].dir().replace("gateway.toml", only(&upstream, "/b"));
    let report = reload(&gateways[1]).is(200).json();
    let other = digest(&gateways[1]);
    assert_ne!(other, first);
    assert_eq!(report["digest"], json!(other), "{report:#}");
    gateways[1].dir().replace("gateway.toml", completed(&policy(&upstream, route)));
    assert_eq!(reload(&gateways[1]).is(200).json()["digest"], json!(first));
}

#[test]
fn only_an_operators_tool_may_ask_for_a_reload() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let ask = || Request::post("/reload", "");
    for (request, status) in [
        (Request::get("/reload").host("localhost"), 405),
        (ask().host("evil.test"), 403),
        (ask().host("localhost").header("Origin", "http://localhost"), 403),
        (ask().host("localhost").header("Host", "evil.test"), 403),
    ] {
        let answer = request.to(gateway.admin());
        assert!(answer.status == status || answer.status == 400, "{answer:#?}");
    }
    Request::post("/reload", "").to(gateway.http()).is(200);
    assert_eq!(upstream.last_request().target, "/reload", "elsewhere it is a path like others");
    assert_eq!(generation(&gateway), 1);
    assert_eq!(reload(&gateway).status, 200);
}

#[test]
fn a_bad_file_keeps_the_old_policy_and_is_reported_until_it_is_repaired() {
    let upstream = Upstream::start();
    let good = only(&upstream, "/a");
    let gateway = gateway(&upstream, "[[route]]\npath = \"/a\"\nupstream = \"app\"\naccess = \"public\"\n");
    let misspelt = good.replace("access = \"public\"", "acces = \"public\"");
    let half = &good[..good.find("servers").unwrap() + 12];
    let bad: [&[u8]; 5] = [misspelt.as_bytes(), half.as_bytes(), b"\xff\xfe\x00", b"[", &[b'a'; 1 << 16]];
    for (count, bad) in (1..).zip(bad) {
        gateway.dir().replace("gateway.toml", bad);
        let answer = reload(&gateway);
        let report = answer.json();
        assert_eq!((answer.status, &report["outcome"]), (422, &json!("refused")), "{report:#}");
        let diagnostics = report["diagnostics"].as_array().expect("what is wrong");
        assert!(diagnostics.iter().any(|found| found["severity"] == "fault"), "{report:#}");
        serves_only(&gateway, "/a", "/b");
        assert_eq!((generation(&gateway), reloads(&gateway, "refused")), (1, count));
        assert_eq!(sample(&gateway, "portcullis_policy_last_reload_ok"), 0);
        let lines = verbose(&gateway);
        assert!(lines.starts_with("ready\n"), "{lines}");
        assert!(lines.contains("policy: generation 1, loaded"), "{lines}");
        assert!(lines.contains("policy: the file on disk has not loaded since 20"), "{lines}");
    }
    gateway.wait_log("the fault is logged with its place", |line| {
        line["message"] == "the policy has a fault" && line["key"].as_str().unwrap_or("").contains("acces")
    });
    gateway.wait_log("and that the old policy goes on", |line| {
        line["message"] == REFUSED && line["level"] == "error" && line["generation"] == 1
    });

    std::fs::remove_file(gateway.dir().path().join("gateway.toml")).unwrap();
    assert_eq!(reload(&gateway).status, 422, "it is gone");
    std::fs::create_dir(gateway.dir().path().join("gateway.toml")).unwrap();
    gateway.signal("HUP");
    eventually("a folder is refused by signal too", || reloads(&gateway, "refused") == 7);
    serves_only(&gateway, "/a", "/b");

    std::fs::remove_dir(gateway.dir().path().join("gateway.toml")).unwrap();
    gateway.dir().write("gateway.toml", only(&upstream, "/b"));
    assert_eq!(reload(&gateway).is(200).json()["generation"], 2);
    serves_only(&gateway, "/b", "/a");
    assert_eq!(sample(&gateway, "portcullis_policy_last_reload_ok"), 1);
    assert!(!verbose(&gateway).contains("does not load"), "{}", verbose(&gateway));
}

#[test]
fn messages_about_a_bad_file_contain_no_secret() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let secret = "s3cret-that-nobody-may-read-in-any-log-00000";
    let issuer = format!(
        "[[issuer]]\nissuer = \"https://b.test/\"\naudience = [\"b\"]\nalgorithms = [\"HS512\"]\nsecret = \"{secret}\"\n"
    );
    for bad in [issuer.clone(), issuer.replace("secret = \"", "secret = ").replace("000\"", "000")] {
        gateway.dir().replace("gateway.toml", completed(&policy(&upstream, &format!("{bad}{PUBLIC}"))));
        let answer = reload(&gateway);
        assert_eq!(answer.status, 422, "{answer:#?}");
        assert!(!answer.text().contains("s3cret"), "{answer:#?}");
        assert!(!verbose(&gateway).contains("s3cret"), "{}", verbose(&gateway));
    }
    let log = gateway.stop();
    assert!(log.contains(REFUSED) && !log.contains("s3cret"), "{log}");
}

fn limited(rate: &str) -> String {
    format!(
        "[rate_limit.few]\nby = \"client_ip\"\nrate = \"{rate}\"\nburst = 3\n\
         [[route]]\nname = \"limited\"\npath = \"/limited\"\nupstream = \"app\"\naccess = \"public\"\n\
         rate_limits = [\"few\"]\n"
    )
}

#[test]
fn counts_of_a_limit_go_on_over_a_reload_that_leaves_it_alone_and_only_over_such_a_one() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, &limited("1/h"));
    let ask = || Request::get("/limited").to(gateway.http());
    let swap = |tables: &str| {
        gateway.dir().replace("gateway.toml", completed(&policy(&upstream, tables)));
        assert_eq!(reload(&gateway).status, 200);
    };
    ask().is(200);
    ask().is(200);
    swap(&format!("{}{PUBLIC}", limited("1/h")));
    ask().is(200);
    ask().is_refusal(429, "rate_limited");
    for _ in 0..5 {
        swap(&limited("1/h"));
        ask().is_refusal(429, "rate_limited");
    }
    swap(&limited("2/h"));
    for _ in 0..3 {
        ask().is(200);
    }
    ask().is_refusal(429, "rate_limited");
}

#[test]
fn connections_to_an_upstream_that_stays_are_used_on() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    for path in ["/a", "/b", "/c"] {
        gateway.dir().replace("gateway.toml", only(&upstream, path));
        assert_eq!(reload(&gateway).status, 200);
        Request::get(path).over(&mut connection).is(200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn counters_of_a_route_go_on_over_a_reload() {
    let upstream = Upstream::start();
    let route = |path: &str| {
        format!("[[route]]\nname = \"it\"\npath = \"{path}\"\nupstream = \"app\"\naccess = \"public\"\n")
    };
    let gateway = gateway(&upstream, &route("/a"));
    Request::get("/a").to(gateway.http()).is(200);
    gateway.dir().replace("gateway.toml", completed(&policy(&upstream, &route("/b"))));
    assert_eq!(reload(&gateway).status, 200);
    Request::get("/b").to(gateway.http()).is(200);
    eventually("both requests are counted", || {
        let text = Request::get("/metrics").to(gateway.admin()).text();
        let counts = text.lines().filter(|line| line.starts_with("portcullis_requests_total{route=\"it\""));
        counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>() == 2
    });
}

#[test]
fn revoked_tokens_stay_revoked_and_sessions_stay_good_over_a_reload() {
    let routes = "[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/any\"\nupstream = \"echo\"\n";
    let gateway = Portcullis::with(&format!("{AUTHORITY}{routes}")).start();
    account::add(gateway.dir(), "ada", &[]);
    let address = gateway.http();
    let (ended, alive) = (login(address, "ada"), login(address, "ada"));
    let ask = |token: &str| Request::get("/any").bearer(token).to(address);
    ask(&ended.access).is(200);
    ask(&alive.access).is(200);
    Request::post("/auth/logout", "").bearer(&ended.access).to(address);
    ask(&ended.access).is_refusal(401, "revoked_token");
    for round in 0..3 {
        // Each round changes a bound, so that each reload loads a new policy.
        let bounds = format!("[server.bounds]\nbody_size = \"{}MiB\"\n", 10 + round);
        gateway.dir().replace("gateway.toml", completed(&format!("{bounds}{AUTHORITY}{routes}")));
        assert_eq!(reload(&gateway).status, 200);
        ask(&ended.access).is_refusal(401, "revoked_token");
        let refused = post(address, "/auth/refresh", &json!({ "refresh_token": ended.refresh }));
        assert_eq!(refused.status, 401, "{refused:#?}");
        ask(&alive.access).is(200);
        let again = login(address, "ada");
        ask(&again.access).is(200);
        Request::post("/auth/logout", "").bearer(&again.access).to(address);
        ask(&again.access).is_refusal(401, "revoked_token");
    }
    // Revocations survive a policy without an authority.
    gateway.dir().replace("gateway.toml", completed(&format!("{ISSUER}{routes}")));
    assert_eq!(reload(&gateway).status, 200);
    ask(&alive.access).is_refusal(401, "unknown_issuer");
    gateway.dir().replace("gateway.toml", completed(&format!("{AUTHORITY}{routes}")));
    assert_eq!(reload(&gateway).status, 200);
    ask(&ended.access).is_refusal(401, "revoked_token");
    ask(&alive.access).is(200);
}

const GUARDED: &str = "[[route]]\npath = \"/guarded\"\nupstream = \"app\"\n";

#[test]
fn an_issuers_changed_key_refuses_its_old_tokens_from_the_next_request_on() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, GUARDED);
    let (old, new) = (token("ada").sign(), token("ada").sign_as_the_stranger());
    let mut connection = Connection::open(gateway.http());
    let mut ask = |token: &str| Request::get("/guarded").bearer(token).over(&mut connection);
    for _ in 0..3 {
        // The requests are repeated, so that the caches contain the results.
        ask(&old).is(200);
        ask(&new).is_refusal(401, "bad_signature");
    }
    for _ in 0..3 {
        gateway.dir().replace("jwks.json", forge::jwks_of_the_stranger().to_string());
        assert_eq!(reload(&gateway).status, 200);
        ask(&old).is_refusal(401, "bad_signature");
        ask(&new).is(200);
        ask(&new).is(200);
        gateway.dir().replace("jwks.json", forge::jwks().to_string());
        assert_eq!(reload(&gateway).status, 200);
        ask(&new).is_refusal(401, "bad_signature");
        ask(&old).is(200);
        ask(&old).is(200);
    }
    gateway.dir().replace("jwks.json", "{\"keys\":[]}");
    let answer = reload(&gateway);
    assert_eq!(answer.status, 422, "a set without a key is no set: {answer:#?}");
    ask(&old).is(200);
}

#[test]
fn a_rule_for_tokens_applies_to_cached_tokens() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, GUARDED);
    let good = token("ada").role("clerk").sign();
    let ask = || Request::get("/guarded").bearer(&good).to(gateway.http());
    let before = completed(&policy(&upstream, GUARDED));
    for (what, wanted, code) in [
        ("audience   = [\"orders\"]", "audience = [\"billing\"]", "wrong_audience"),
        ("https://id.test/", "https://other.test/", "unknown_issuer"),
        ("upstream = \"app\"\n", "upstream = \"app\"\nroles = [\"admin\"]\n", "insufficient_role"),
        ("algorithms = [\"ES256\"]", "algorithms = [\"EdDSA\"]", "unsupported_algorithm"),
    ] {
        ask().is(200);
        ask().is(200);
        assert!(before.contains(what), "{what}");
        gateway.dir().replace("gateway.toml", before.replace(what, wanted));
        assert_eq!(reload(&gateway).status, 200, "{wanted}");
        let refused = ask();
        assert_eq!(refused.code(), code, "{refused:#?}");
        gateway.dir().replace("gateway.toml", &before);
        assert_eq!(reload(&gateway).status, 200);
    }
    ask().is(200);
}

#[test]
fn a_stream_lives_on_under_its_policy_though_its_route_is_gone() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = Upstream::with(move |seen, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        if seen.target == "/a" {
            opened.wait();
        }
        wire.send("4\r\nlast\r\n0\r\n\r\n");
        After::Keep
    });
    let gateway = gateway(&upstream, "[[route]]\npath = \"/a\"\nupstream = \"app\"\naccess = \"public\"\n");
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/a").bytes());
    upstream.wait_for_requests(1);
    gateway.dir().replace("gateway.toml", only(&upstream, "/b"));
    assert_eq!(reload(&gateway).status, 200);
    serves_only(&gateway, "/b", "/a");
    eventually("the old policy is counted as in use", || {
        sample(&gateway, "portcullis_policies_before_in_use") == 1
    });
    gate.open();
    assert_eq!(connection.answer().is(200).text(), "firstlast");
    Request::get("/a").over(&mut connection).is_refusal(404, "no_route");
    Request::get("/b").over(&mut connection).is(200);
    eventually("and as gone when nothing goes on under it", || {
        sample(&gateway, "portcullis_policies_before_in_use") == 0
    });
}

#[test]
fn a_reload_names_the_keys_that_need_a_restart_and_applies_the_rest() {
    let upstream = Upstream::start();
    let https = "[server]\nhttps = \"127.0.0.1:0\"\n";
    let gateway = gateway(&upstream, &format!("{https}{PUBLIC}"));
    let route = "[[route]]\npath = \"/b\"\nupstream = \"app\"\naccess = \"public\"\n";
    let changed = format!("{https}workers = 2\n[tls]\nmin_version = \"1.3\"\n{}", policy(&upstream, route));
    let changed = completed(&changed).replace("http = \"127.0.0.1:0\"", "http = \"127.0.0.1:1\"");
    gateway.dir().replace("gateway.toml", changed);
    let report = reload(&gateway).is(200).json();
    let warnings = report["warnings"].as_array().unwrap();
    let restart = warnings.iter().filter(|warning| warning["id"] == "restart_needed");
    let keys: Vec<_> = restart.map(|warning| warning["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["server.http", "server.workers", "tls.min_version"], "{report:#}");
    serves_only(&gateway, "/b", "/a");
    gateway.wait_log("the key is logged", |line| line["key"] == "server.http" && line["level"] == "warn");
}

/// A way to replace the policy file: its name, and the function that does it.
type Way = (&'static str, fn(&Dir, &str));

/// Returns a watched policy with a route for this path.
fn watching(upstream: &Upstream, reload: &str, path: &str) -> String {
    let route = format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\naccess = \"public\"\n");
    completed(&format!("[server]\nreload = \"{reload}\"\n{}{GUARDED}", policy(upstream, &route)))
}

#[test]
fn a_watched_file_is_read_again_however_it_was_put_in_place_and_another_is_not() {
    let upstream = Upstream::start();
    let watched = Portcullis::with(&watching(&upstream, "watch", "/0")).start();
    let signalled = Portcullis::with(&watching(&upstream, "signal", "/0")).start();
    let ways: [Way; 4] = [
        ("renamed over the old one", |dir, text| dir.replace("gateway.toml", text)),
        ("written in place", |dir, text| dir.write("gateway.toml", text)),
        ("removed and made anew", |dir, text| {
            std::fs::remove_file(dir.path().join("gateway.toml")).unwrap();
            dir.write("gateway.toml", text);
        }),
        ("renamed away and replaced, as editors do", |dir, text| {
            std::fs::rename(dir.path().join("gateway.toml"), dir.path().join("gateway.toml~")).unwrap();
            dir.write("gateway.toml", text);
        }),
    ];
    for (count, (way, put)) in (1..).zip(ways) {
        let (new, old) = (format!("/{count}"), format!("/{}", count - 1));
        put(signalled.dir(), &watching(&upstream, "signal", &new));
        put(watched.dir(), &watching(&upstream, "watch", &new));
        eventually(way, || Request::get(&new).to(watched.http()).status == 200);
        serves_only(&watched, &new, &old);
        // The file of the gateway with `reload = "signal"` changed first. If that gateway watched its file, it would
        // have reloaded by now.
        Request::get(&new).to(signalled.http()).is_refusal(404, "no_route");
    }
    assert_eq!(generation(&signalled), 1);
    assert_eq!(reload(&signalled).status, 200);
    serves_only(&signalled, "/4", "/0");

    let (old, new) = (token("ada").sign(), token("ada").sign_as_the_stranger());
    let ask = |token: &str| Request::get("/guarded").bearer(token).to(watched.http());
    ask(&old).is(200);
    watched.dir().replace("jwks.json", forge::jwks_of_the_stranger().to_string());
    eventually("the files that the policy names are watched as well", || ask(&new).status == 200);
    ask(&old).is_refusal(401, "bad_signature");

    watched.dir().replace("gateway.toml", "half a fi");
    eventually("a bad file is reported", || reloads(&watched, "refused") == 1);
    serves_only(&watched, "/4", "/0");
    watched.dir().replace("gateway.toml", watching(&upstream, "signal", "/5"));
    eventually("and the mended one is taken", || Request::get("/5").to(watched.http()).status == 200);
    watched.dir().replace("gateway.toml", watching(&upstream, "watch", "/6"));
    assert_eq!(generation(&watched), reloads(&watched, "reloaded") + 1);
    assert_eq!(reload(&watched).status, 200, "it is watched no more, and so was asked to");
    watched.dir().replace("gateway.toml", watching(&upstream, "watch", "/7"));
    eventually("and now it is again", || Request::get("/7").to(watched.http()).status == 200);
}

/// A thing that a policy lacks: the condition to wait for, the table that needs it, and the function that provides it.
type Lack<'t> = (&'static str, &'t str, fn(&Dir));

/// Kubernetes updates the volume of a policy minutes before or after that of a secret that the policy names.
#[test]
fn a_watched_policy_that_needs_what_is_not_there_yet_is_loaded_once_it_is() {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&watching(&upstream, "watch", "/0")).start();
    let issuer = "[[issuer]]\nissuer = \"https://late.test/\"\naudience = [\"orders\"]\nalgorithms = [\"HS256\"]\n\
                  secret = \"file:late-secret\"\n";
    // A file stands where the store's folder would be.
    gateway.dir().write("late", "");
    let authority = "[authority]\nissuer = \"https://own.test\"\naudience = [\"orders\"]\nstore = \"sqlite:late/accounts.db\"\n";
    let lacks: [Lack<'_>; 2] = [
        ("the secret is there", issuer, |dir| {
            dir.replace("late-secret", "k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHcA1bC2dE3")
        }),
        ("the store can be opened", authority, |dir| std::fs::remove_file(dir.path().join("late")).unwrap()),
    ];
    for (count, (what, table, provide)) in (1..).zip(lacks) {
        let (new, old) = (format!("/{count}"), format!("/{}", count - 1));
        let text = format!("{}\n{table}", watching(&upstream, "watch", &new));
        gateway.dir().replace("gateway.toml", text);
        eventually("the fault is reported", || reloads(&gateway, "refused") == count);
        serves_only(&gateway, &old, &new);
        provide(gateway.dir());
        eventually(what, || Request::get(&new).to(gateway.http()).status == 200);
        serves_only(&gateway, &new, &old);
        assert_eq!(reloads(&gateway, "refused"), count, "repetitions with the same result are not counted");
        assert_eq!(reported(&gateway, REFUSED) as u64, count, "and not logged");
    }
    assert!(!verbose(&gateway).contains("has not loaded"), "{}", verbose(&gateway));
}

#[test]
fn a_folder_that_kubernetes_turns_to_another_one_is_followed() {
    let upstream = Upstream::start();
    let dir = std::rc::Rc::new(Dir::new());
    let volume = dir.path().join("volume");
    let put = |version: &str, path: &str| {
        let folder = volume.join(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("gateway.toml"), watching(&upstream, "watch", path)).unwrap();
        // The kubelet creates a new link and renames it over the old one.
        symlink(version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    put("..v1", "/1");
    // The gateway starts with a plain file, which is then replaced by the link of a mounted volume.
    let gateway = Portcullis::with(&watching(&upstream, "watch", "/0")).within(dir.clone()).start();
    symlink("volume/..data/gateway.toml", dir.path().join("gateway.toml.new")).unwrap();
    std::fs::rename(dir.path().join("gateway.toml.new"), dir.path().join("gateway.toml")).unwrap();
    eventually("the link is followed", || Request::get("/1").to(gateway.http()).status == 200);
    for round in 2..5 {
        let (new, old) = (format!("/{round}"), format!("/{}", round - 1));
        put(&format!("..v{round}"), &new);
        std::fs::remove_dir_all(volume.join(format!("..v{}", round - 1))).unwrap();
        eventually("the other folder is read", || Request::get(&new).to(gateway.http()).status == 200);
        serves_only(&gateway, &new, &old);
    }
    assert_eq!(reloads(&gateway, "refused"), 0, "nothing is read between two folders");
}

#[test]
fn a_storm_of_signals_and_calls_ends_with_the_newest_file_in_force() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    std::thread::scope(|scope| {
        let admin = gateway.admin();
        for _ in 0..4 {
            scope.spawn(move || {
                for _ in 0..15 {
                    let answer = Request::post("/reload", "").host("localhost").to(admin);
                    // Each request is answered, with 503 if too many are waiting.
                    assert!(matches!(answer.status, 200 | 422 | 503), "{answer:#?}");
                }
            });
        }
        for round in 0..60 {
            let text = match round % 3 {
                0 => "no policy".to_owned(),
                _ => only(&upstream, &format!("/{round}")),
            };
            gateway.dir().replace("gateway.toml", text);
            gateway.signal("HUP");
        }
    });
    gateway.dir().replace("gateway.toml", only(&upstream, "/last"));
    gateway.signal("HUP");
    eventually("the last signal counts", || Request::get("/last").to(gateway.http()).status == 200);
    serves_only(&gateway, "/last", "/59");
    // The log agrees with the metrics.
    eventually("each reload is logged once", || {
        reported(&gateway, RELOADED) as u64 == reloads(&gateway, "reloaded")
            && reported(&gateway, REFUSED) as u64 == reloads(&gateway, "refused")
    });
    assert_eq!(generation(&gateway), reloads(&gateway, "reloaded") + 1);
    assert_eq!(sample(&gateway, "portcullis_policy_last_reload_ok"), 1);
    gateway.stop();
}

#[test]
fn a_reload_while_draining_neither_ends_nor_holds_up_what_is_finished() {
    let gate = Gate::new();
    let upstream = Upstream::held_by(&gate);
    let mut gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    eventually("it drains", || Request::get("/readyz").to(gateway.admin()).status == 503);
    gateway.dir().replace("gateway.toml", only(&upstream, "/b"));
    assert_eq!(reload(&gateway).status, 200);
    gateway.signal("HUP");
    eventually("by signal too", || generation(&gateway) == 3);
    gateway.dir().replace("gateway.toml", "no policy");
    assert_eq!(reload(&gateway).status, 422);
    assert_eq!(Request::get("/readyz").to(gateway.admin()).status, 503, "it is still draining");
    gate.open();
    assert_eq!(connection.answer().is(200).text(), "late");
    assert_eq!(gateway.exit_code(), Some(0));
}
