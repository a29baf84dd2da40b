//! The shared state at a server with TLS and a user of its own, behind Sentinels, and in a cluster.

use crate::kit::dir::Dir;
use crate::kit::pki::Authority;
use crate::kit::port::reserve;
use crate::kit::portcullis::command;
use crate::kit::redis::{FalseRedis, Redis};
use crate::kit::{ISSUER, Portcullis, eventually, tls};
use crate::shared::{call, policy, revoke};
use crate::signals::SIGNALS;
use std::net::TcpListener;

const ROUTES: &str = "[upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/any\"\nupstream = \"echo\"\n";

/// Checks that a revocation at one gateway reaches another one with the same policy.
#[track_caller]
fn share(text: &str, subject: &str) -> (Portcullis, Portcullis) {
    let (one, two) = (Portcullis::with(text).start(), Portcullis::with(text).start());
    for gateway in [&one, &two] {
        eventually("the gateway knows the revocations", || call(gateway.http(), subject).status == 200);
    }
    revoke(one.http(), subject).is(202);
    eventually("the other gateway refuses", || call(two.http(), subject).status == 401);
    (one, two)
}

fn shared(lines: &str) -> String {
    format!("{ISSUER}{ROUTES}{SIGNALS}\n[shared]\n{lines}")
}

#[test]
fn a_server_with_tls_and_a_user_of_its_own_is_verified_and_serves() {
    let (authority, stranger) = (Authority::new("Fleet"), Authority::new("Other"));
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::at_port(|dir: &Dir, port| {
        dir.write("certificate.pem", &identity.pem);
        dir.write("key.pem", &identity.key);
        dir.write(
            "users.acl",
            "user default off\nuser gateway on >secret ~portcullis:* -@all +ping +role +xadd +xrange +xread +set \
             +evalsha +script|load +time +getrange +del +hgetall +hset +hdel +pexpire +zadd +zremrangebyscore +zcard\n",
        );
        let path = |name: &str| dir.path().join(name).display().to_string();
        let pairs = [
            ("--port", "0".to_owned()),
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", path("certificate.pem")),
            ("--tls-key-file", path("key.pem")),
            ("--tls-auth-clients", "no".to_owned()),
            ("--aclfile", path("users.acl")),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    });
    let url = redis.url().replace("redis://127.0.0.1", "rediss://localhost");
    let ca = |authority: &Authority| {
        redis.dir().write("ca.pem", &authority.pem);
        redis.dir().path().join("ca.pem").display().to_string()
    };
    let text = |url: &str, ca: &str| {
        shared(&format!("url = \"{url}\"\nca = \"{ca}\"\nuser = \"gateway\"\npassword = \"secret\"\n"))
    };
    let (one, _two) = share(&text(&url, &ca(&authority)), "ada");
    eventually("the user may run the scripts of the limits", || {
        one.metric("portcullis_shared_gateways") == Some(2)
    });
    // Another authority, and another name, are refused.
    for (url, trusted) in [(url.clone(), &stranger), (url.replace("localhost", "127.0.0.1"), &authority)] {
        let gateway = Portcullis::with(&text(&url, &ca(trusted))).start();
        let event =
            gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
        assert_eq!(event["reason"], "tls", "{event}");
        call(gateway.http(), "ada").is_refusal(503, "check_unavailable");
    }
    // Redis shows the certificate of its authority, as a self-signed one of `openssl req -x509` is.
    let shown = authority.issue_authority(&["localhost"]);
    let server = tls::Server::start(&shown.certificate, &rcgen::KeyPair::from_pem(&shown.key).unwrap());
    let url = format!("rediss://localhost:{}", server.port());
    let gateway = Portcullis::with(&text(&url, &ca(&authority))).start();
    let event = gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    assert_eq!(event["reason"], "tls", "{event}");
    assert!(event["error"].as_str().is_some_and(|error| error.contains("(CA:TRUE)")), "{event}");
}

#[test]
fn sentinels_name_the_server_and_its_successor() {
    let master = Redis::at_port(|_, port| {
        let text = format!("--port {port} --repl-diskless-sync-delay 0");
        text.split(' ').map(str::to_owned).collect()
    });
    let of_master = master.url().rsplit_once(':').unwrap().1.to_owned();
    let replica = Redis::at_port(|_, port| {
        let text = format!("--port {port} --replicaof 127.0.0.1 {of_master} --repl-diskless-sync-delay 0");
        text.split(' ').map(str::to_owned).collect()
    });
    eventually("the replica follows", || replica.ask(&["ROLE"]).contains("connected"));
    let sentinel = Redis::sentinel(&master);
    eventually("the Sentinel knows the replica", || {
        sentinel.ask(&["SENTINEL", "REPLICAS", "main"]).contains("slave")
    });
    // The first Sentinel does not answer.
    let dead = format!("redis://{}", reserve());
    let text = shared(&format!("sentinels = [\"{dead}\", \"{}\"]\nmaster = \"main\"\n", sentinel.url()));
    let (one, two) = share(&text, "ada");
    eventually("the Sentinel begins a failover", || {
        sentinel.try_ask(&["SENTINEL", "FAILOVER", "main"]).is_some()
    });
    // The Sentinel closes all connections of clients to the server that it promotes.
    eventually("the replica is the master", || {
        replica.try_ask(&["ROLE"]).is_some_and(|role| role.contains("master"))
    });
    eventually("the gateway accepts", || revoke(one.http(), "bob").status == 202);
    eventually("the other gateway refuses", || call(two.http(), "bob").status == 401);
    call(two.http(), "ada").is_refusal(401, "revoked_token");
    eventually("the new master has the mark", || replica.marks() >= 2);
}

/// The view of the first Sentinel is old: it names a replica, or a server that does not answer.
#[test]
fn a_sentinel_that_names_no_master_is_passed_over() {
    let master = Redis::at_port(|_, port| ["--port".to_owned(), port.to_string()].into());
    let of_master = master.url().rsplit_once(':').unwrap().1.to_owned();
    let replica = Redis::at_port(|_, port| {
        let text = format!("--port {port} --replicaof 127.0.0.1 {of_master}");
        text.split(' ').map(str::to_owned).collect()
    });
    eventually("the replica follows", || replica.ask(&["ROLE"]).contains("connected"));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = FalseRedis::sentinel(&silent.local_addr().unwrap().to_string());
    let (old, new) = (FalseRedis::sentinel(replica.url()), FalseRedis::sentinel(master.url()));
    let text = |sentinels: &[&FalseRedis]| {
        let urls: Vec<_> = sentinels.iter().map(|sentinel| format!("\"{}\"", sentinel.url())).collect();
        shared(&format!("sentinels = [{}]\nmaster = \"main\"\n", urls.join(", ")))
    };
    let (one, _two) = share(&text(&[&old, &silent, &new]), "ada");
    let event =
        one.wait_log("the Sentinel", |line| line["message"] == "a Sentinel names no server that can be used");
    let why = event["error"].as_str().unwrap();
    assert!(why.contains(old.url()) && why.contains(replica.url()) && why.contains("is a replica"), "{why}");
    assert!(why.contains(silent.url()) && why.contains("no answer in time"), "{why}");
    eventually("the master has the mark", || master.marks() == 1);
    // Without another Sentinel, the replica is not used.
    let gateway = Portcullis::with(&text(&[&old])).start();
    let event = gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    let why = event["error"].as_str().unwrap();
    assert!(event["reason"] == "connect" && why.contains("is a replica, not the master"), "{event}");
    call(gateway.http(), "bob").is_refusal(503, "check_unavailable");
}

#[test]
fn the_nodes_of_a_cluster_serve_as_one_server_does() {
    let nodes = Redis::cluster();
    let named: Vec<_> = nodes[..2].iter().map(|node| format!("\"{}\"", node.url())).collect();
    let text = shared(&format!("cluster = [{}]\nanswer_timeout = \"2s\"\n", named.join(", ")));
    let (one, two) = share(&text, "ada");
    for gateway in [&one, &two] {
        call(gateway.http(), "ada").is_refusal(401, "revoked_token");
        call(gateway.http(), "bob").is(200);
        assert_eq!(gateway.metric("portcullis_shared_up"), Some(1));
        let are_shared = || gateway.metric("portcullis_shared_gateways") == Some(2);
        eventually("the nodes run the scripts of the limits", are_shared);
    }
}

/// Nodes with `cluster-preferred-endpoint-type unknown-endpoint` redirect to a port without a host, which means the host
/// that was asked (Redis Cluster specification, MOVED redirection).
#[test]
fn a_slot_that_moves_costs_no_call_also_among_nodes_that_name_no_hosts() {
    for more in ["", "--cluster-preferred-endpoint-type unknown-endpoint"] {
        let nodes = Redis::cluster_with(more);
        let text = format!(
            "{ISSUER}{}{SIGNALS}\n[rate_limit.each]\nby = \"client_ip\"\nrate = \"1/h\"\nburst = 1000\nexact = true\n\
             [shared]\ncluster = [\"{}\"]\nanswer_timeout = \"2s\"\n[shared.on_error]\nlimits = \"deny\"\n",
            ROUTES.replace("path = \"/any\"", "path = \"/any\"\nrate_limits = \"each\""),
            nodes[0].url()
        );
        let (one, two) = share(&text, "ada");
        eventually("the limits are shared", || one.metric("portcullis_shared_gateways") == Some(2));
        let listed: String = nodes.iter().map(|node| node.ask(&["KEYS", "portcullis:*"])).collect();
        let keys: Vec<_> = listed.split(['\'', '"']).filter(|part| part.starts_with("portcullis:")).collect();
        assert!(keys.len() >= 3, "gateways, revocations and a bucket: {listed}");
        for key in keys {
            Redis::move_slot(&nodes, key);
            call(one.http(), "bob").is(200);
        }
        revoke(one.http(), "bob").is(202);
        eventually("the other gateway refuses", || call(two.http(), "bob").status == 401);
        for gateway in [&one, &two] {
            assert_eq!(
                gateway.metric("portcullis_shared_failures_total{reason=\"refused\"}"),
                Some(0),
                "{more}"
            );
        }
    }
}

/// The gateway opens the connections to nodes itself: with its authorities, and with the permissions in docs/shared.md.
#[test]
fn a_cluster_with_tls_is_verified_and_knows_the_user() {
    let (authority, stranger) = (Authority::new("Fleet"), Authority::new("Other"));
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::at_port(|dir: &Dir, port| {
        dir.write("certificate.pem", &identity.pem);
        dir.write("key.pem", &identity.key);
        dir.write("authority.pem", &authority.pem);
        dir.write(
            "users.acl",
            "user default on nopass ~* &* +@all\n\
             user gateway on >secret ~portcullis:* -@all +ping +role +select +xadd +xrange +xread +set \
             +cluster|slots +cluster|nodes +info +evalsha +script|load +time +hgetall +hset +hdel +pexpire +zadd \
             +zremrangebyscore +zcard\n",
        );
        let path = |name: &str| dir.path().join(name).display().to_string();
        let pairs = [
            // The kit uses the port without TLS. The node announces the other one.
            ("--port", port.to_string()),
            ("--tls-port", reserve().port().to_string()),
            ("--tls-cluster", "yes".to_owned()),
            ("--tls-ca-cert-file", path("authority.pem")),
            ("--tls-cert-file", path("certificate.pem")),
            ("--tls-key-file", path("key.pem")),
            ("--tls-auth-clients", "no".to_owned()),
            ("--aclfile", path("users.acl")),
            ("--cluster-enabled", "yes".to_owned()),
            ("--cluster-port", reserve().port().to_string()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    });
    redis.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let text = |authority: &Authority| {
        redis.dir().write("ca.pem", &authority.pem);
        let (node, ca) = (redis.argument("--tls-port"), redis.dir().path().join("ca.pem"));
        shared(&format!(
            "cluster = [\"rediss://localhost:{node}\"]\nca = \"{}\"\nuser = \"gateway\"\npassword = \"secret\"\n\
             answer_timeout = \"2s\"\n",
            ca.display()
        ))
    };
    let (one, _two) = share(&text(&authority), "ada");
    eventually("the user may run the scripts of the limits", || {
        one.metric("portcullis_shared_gateways") == Some(2)
    });
    assert!(!redis.ask(&["ACL", "LOG"]).contains("command"), "{}", redis.ask(&["ACL", "LOG"]));
    let gateway = Portcullis::with(&text(&stranger)).start();
    let event = gateway.wait_log("the outage", |line| line["message"] == "the shared state cannot be used");
    assert!(event["error"].as_str().is_some_and(|why| why.contains("UnknownIssuer")), "{event}");
    call(gateway.http(), "ada").is_refusal(503, "check_unavailable");
}

#[test]
fn a_mistake_in_the_section_is_a_fault_that_names_its_key_and_no_password() {
    let dir = Dir::new();
    let url = "url = \"redis://cache\"\n";
    for (lines, id, key) in [
        (String::new(), "missing_key", "shared"),
        (format!("{url}cluster = [\"redis://a\"]\n"), "bad_value", "shared"),
        ("url = \"redis://ada:hidden@cache\"\n".to_owned(), "bad_value", "shared.url"),
        ("url = \"http://cache\"\n".to_owned(), "bad_value", "shared.url"),
        ("sentinels = [\"redis://a\"]\n".to_owned(), "missing_key", "shared.master"),
        (
            "sentinels = [\"redis://a\", \"b\"]\nmaster = \"m\"\n".to_owned(),
            "bad_value",
            "shared.sentinels[1]",
        ),
        (format!("{url}master = \"m\"\n"), "bad_value", "shared.master"),
        ("cluster = [\"redis://a\"]\ndatabase = 1\n".to_owned(), "bad_value", "shared.database"),
        ("cluster = [\"redis://a\", \"rediss://b\"]\n".to_owned(), "bad_value", "shared.cluster"),
        (format!("{url}user = \"ada\"\n"), "missing_key", "shared.password"),
        (format!("{url}password = \"env:NOT_SET_ANYWHERE\"\n"), "no_secret", "shared.password"),
        (format!("{url}prefix = \"a:b\"\n"), "bad_value", "shared.prefix"),
        (format!("{url}prefix = \"a{{}}\"\n"), "bad_value", "shared.prefix"),
        (format!("{url}answer_timeout = \"1m\"\n"), "bad_value", "shared.answer_timeout"),
        (format!("{url}connect_timeout = \"0s\"\n"), "bad_value", "shared.connect_timeout"),
        ("url = \"rediss://cache\"\nca = \"missing.pem\"\n".to_owned(), "bad_file", "shared.ca"),
        (format!("{url}[shared.on_error]\nlogins = \"deny\"\n"), "unknown_key", "shared.on_error.logins"),
        (format!("{url}[shared.on_error]\nreplay = \"maybe\"\n"), "bad_value", "shared.on_error.replay"),
    ] {
        crate::kit::portcullis::write_policy(&dir, &shared(&lines));
        let checked = command(&dir, &["check", "--format", "json"]);
        let text = checked.text();
        let is_found = text.contains(&format!("\"{id}\"")) && text.contains(&format!("\"{key}\""));
        assert!(is_found && !text.contains("hidden"), "{lines}: {text}");
    }
    crate::kit::portcullis::write_policy(&dir, &policy("redis://127.0.0.1", ""));
    let checked = command(&dir, &["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    let line = "shared: redis://127.0.0.1:6379; without an answer: limits allow, revocation deny\n";
    assert!(checked.text().contains(line), "{}", checked.text());
}
