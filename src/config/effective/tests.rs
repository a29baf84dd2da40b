//! Tests that the effective policy shows the values that were read, with their origins and without secrets.

use super::*;
use crate::config::shown::MASK;
use crate::config::values::{ClaimValues, Literal};
use crate::config::{environment, load_text};
use proptest::prelude::*;
use std::path::PathBuf;

const SHIPPED: &str = include_str!("../../../gateway.toml");
/// A policy without secrets that contains every kind of value, each different from its default.
const FULL: &str = "policy = { mode = \"shadow\", waive = { a = \"b\" } }\n\
    server = { https = [\"127.0.0.1:1\", \"[::1]:2\"], http = \"\", trusted_proxies = \"10.0.0.0/8\" }\n\
    tls = { certificate = \"c.pem\", key = \"k.pem\", min_version = 1.3 }\n\
    [authority]\nsecret = \"env:S\"\nrole_limit = \"all\"\nstore = \"sqlite:a.db\"\ncompat = \"flask-jwt-extended\"\n\
    [authority.client.\"a b\"]\nsecret = \"file:s\"\n\
    [upstream.\"x.y\"]\nservers = \"http://127.0.0.1:1\"\n[upstream.e]\nbuiltin = \"echo\"\n\
    [rate_limit.l]\nrate = \"7/h\"\nburst = 9\n\
    [[issuer]]\nissuer = \"i\"\n\
    [[route]]\n[[route]]\nclaims = { a = 1, \"b.c\" = true, d = \"{e}\" }\nfresh = \"10m\"\ntimeout = \"1500ms\"\n\
    sources = [\"header\", \"cookie\", \"query\", { header = \"A\" }]\nlogin = \"page\"\n[[route]]\nfresh = true\n\
    [[test]]\nname = \"two\\nlines # and \\\"quotes\\\"\"\nheaders = { Accept = \"x\" }\n\
    claims = { a = [1, { b = [] }], c = { d = \"e\" } }\nexpect = { deny = \"d\", status = 403, headers = { Authorization = \"\" } }\n";

fn load(text: &str, environment: &[(&str, &str)]) -> Loaded {
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    load_text("gateway.toml", text.to_owned(), PathBuf::new(), environment).expect("no fault")
}

/// Formats every key whose value differs from the default, with its value as JSON and its origins.
fn shown(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let effective = Effective::of(&load(text, environment), false).unwrap();
    let entries = effective.entries.iter().map(|entry| {
        let origins: Vec<_> = entry.origins.iter().map(ToString::to_string).collect();
        format!("{} = {} # {}", entry.key, entry.value, origins.join(", "))
    });
    entries.collect()
}

#[test]
fn the_printed_policy_parses_as_the_same_policy() {
    for text in ["", SHIPPED, FULL] {
        let loaded = load(text, &[]);
        for all in [true, false] {
            let shown = Effective::of(&loaded, all).unwrap().to_string();
            assert_eq!(load(&shown, &[]).file, loaded.file, "{shown}");
        }
    }
}

#[test]
fn every_table_has_its_defaults() {
    let file = with_every_table();
    let text = inline(&file).unwrap().into_table().to_string();
    // A default that the file sets explicitly does not count as a change.
    let changed = shown(&text, &[]);
    assert_eq!(changed, Vec::<String>::new(), "{text}");
}

#[test]
fn the_environment_knows_every_table() {
    let written = inline(&with_every_table()).unwrap();
    let mut tables: Vec<String> = written.iter().map(|(name, _)| name.to_uppercase()).collect();
    let mut known = environment::TABLES.to_vec();
    tables.sort();
    known.sort_unstable();
    assert_eq!(tables, known);
}

#[test]
fn each_value_is_printed_with_its_line() {
    let text = "[server]\n\nworkers = 2\nbounds.streams = 7\ndrain = \"30s\"\n[[route]]\npath = \"/\"\n[[route]]\nclaims = { a = 1,\n b = 2 }\n";
    let text = text.replace(",\n b", ", b");
    assert_eq!(
        shown(&text, &[]),
        [
            "server.workers = 2 # gateway.toml:3",
            "server.bounds.streams = 7 # gateway.toml:4",
            "route[0].path = \"/\" # gateway.toml:7",
            "route[1].claims.a = 1 # gateway.toml:9",
            "route[1].claims.b = 2 # gateway.toml:9",
        ]
    );
    let all = Effective::of(&load(&text, &[]), true).unwrap();
    let of = |key: &str| all.entries.iter().find(|entry| entry.key == key).unwrap();
    assert_eq!(of("server.drain").origins, [Origin::Line { file: "gateway.toml".to_owned(), line: 5 }]);
    assert!(!of("server.drain").changed, "given, and yet the default");
    assert_eq!(of("server.plain").origins, [Origin::Default]);
    assert_eq!(of("route[0].access").value, "authenticated");
}

#[test]
fn each_value_is_printed_with_its_variable() {
    let text = "[log]\nlevel = \"warn\"\n[server]\ntrusted_proxies = [\"10.0.0.1\", \"10.0.0.2\"]\n[[issuer]]\nissuer = \"a\"\nkid = \"k\"\n[[issuer]]\nissuer = \"b\"\n";
    assert_eq!(
        shown(
            text,
            &[
                ("PORTCULLIS_LOG", "{ format = \"json\" }"),
                ("PORTCULLIS_SERVER__TRUSTED_PROXIES__1", "10.0.0.3"),
                ("PORTCULLIS_ISSUER__0__AUDIENCE", "x"),
                ("PORTCULLIS_POLICY__WAIVE__A", "b"),
            ]
        ),
        [
            "policy.waive.a = \"b\" # environment variable PORTCULLIS_POLICY__WAIVE__A",
            "server.trusted_proxies = [\"10.0.0.1/32\",\"10.0.0.3/32\"] # gateway.toml:4, environment variable PORTCULLIS_SERVER__TRUSTED_PROXIES__1",
            "issuer[0].issuer = \"a\" # gateway.toml:6",
            "issuer[0].audience = [\"x\"] # environment variable PORTCULLIS_ISSUER__0__AUDIENCE",
            "issuer[0].kid = \"k\" # gateway.toml:7",
            "issuer[1].issuer = \"b\" # gateway.toml:9",
            "log.format = \"json\" # environment variable PORTCULLIS_LOG",
            "log.level = \"warn\" # gateway.toml:2",
        ]
    );
}

#[test]
fn a_value_from_a_variable_is_not_attributed_to_the_file() {
    let text = "[[issuer]]\nissuer = \"a\"\nleeway = \"5s\"\n";
    let whole = ("PORTCULLIS_ISSUER", "[{ issuer = \"b\" }]");
    assert_eq!(shown(text, &[whole]), ["issuer[0].issuer = \"b\" # environment variable PORTCULLIS_ISSUER"]);
    let element = ("PORTCULLIS_ISSUER__0__KID", "k");
    assert_eq!(
        shown(text, &[whole, element]),
        [
            "issuer[0].issuer = \"b\" # environment variable PORTCULLIS_ISSUER",
            "issuer[0].kid = \"k\" # environment variable PORTCULLIS_ISSUER__0__KID",
        ]
    );
    let all = Effective::of(&load(text, &[whole]), true).unwrap();
    let leeway = all.entries.iter().find(|entry| entry.key == "issuer[0].leeway").unwrap();
    assert_eq!((leeway.value.as_str(), &*leeway.origins), (Some("30s"), [Origin::Default].as_slice()));
}

#[test]
fn a_table_that_is_there_is_shown_even_if_nothing_in_it_is_changed() {
    let shown = |text: &str| Effective::of(&load(text, &[]), false).unwrap().to_string();
    assert_eq!(shown("[tls]\n[server]\n[upstream.NAME]\n[[route]]\n").matches('[').count(), 4);
    assert_eq!(shown("[server]\nworkers = 0\n"), "");
}

#[test]
fn the_name_of_a_file_cannot_end_its_comment() {
    let text = "[server]\nworkers = 2\n".to_owned();
    let loaded = load_text("a\nhttps = \"\" #", text, PathBuf::new(), Vec::new()).unwrap();
    let shown = Effective::of(&loaded, false).unwrap().to_string();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert_eq!(load(&shown, &[]).file, loaded.file);
}

/// The positions of a secret: the text around it in the file, and the variable that sets it.
const SECRETS: [(&str, &str); 16] = [
    ("[authority]\nsecret = @", "AUTHORITY__SECRET"),
    ("[authority]\nstore = @", "AUTHORITY__STORE"),
    ("[authority]\nstore = \"postgres://user:@@host/name\"", "AUTHORITY__STORE"),
    ("[authority]\nstore = \"postgresql://host/name?password=@\"", "AUTHORITY__STORE"),
    ("[authority.client.a]\nsecret = @", "AUTHORITY__CLIENT__A__SECRET"),
    ("[[issuer]]\nsecret = @", "ISSUER__0__SECRET"),
    ("[[issuer]]\npublic_key = @", "ISSUER__0__PUBLIC_KEY"),
    ("[upstream.a]\nidentity_secret = @", "UPSTREAM__A__IDENTITY_SECRET"),
    ("[upstream.a]\nservers = [\"http://user:@@host\"]", "UPSTREAM__A__SERVERS"),
    ("[[test]]\ntoken = @", "TEST__0__TOKEN"),
    ("[[test]]\nheaders = { Authorization = \"Basic @\" }", "TEST__0__HEADERS__COOKIE"),
    ("[[test]]\nheaders = { X-Any = \"eyJ@\" }", "TEST__0__TOKEN"),
    ("[[test]]\nexpect = { headers = { Authorization = \"Bearer @\" } }", "TEST__0__TOKEN"),
    ("[[test]]\nrequest = \"GET https://user:@@host/@me\"", "TEST__0__TOKEN"),
    ("[[test]]\nrequest = \"GET https://@@host/@me\"", "TEST__0__TOKEN"),
    ("[[test]]\nrequest = \"GET https://host/?a=b&access_token=@&c=d\"", "TEST__0__TOKEN"),
];

#[test]
fn a_value_that_only_resembles_a_secret_is_shown() {
    let test = "[[test]]\nrequest = \"GET https://a:8443/@me?a=b@c&d\"\nheaders = { X-Auth-Subject = \"ada\", Accept = \"x\" }\n\
        expect = { headers = { Authorization = \"\" } }\n";
    assert_eq!(
        shown(test, &[]),
        [
            "test[0].request = \"GET https://a:8443/@me?a=b@c&d\" # gateway.toml:2",
            "test[0].headers.Accept = \"x\" # gateway.toml:3",
            "test[0].headers.X-Auth-Subject = \"ada\" # gateway.toml:3",
            "test[0].expect.headers.Authorization = \"\" # gateway.toml:4",
        ]
    );
    for store in ["sqlite:a@b?c.db", "postgres://portcullis/portcullis"] {
        assert!(shown(&format!("[authority]\nstore = \"{store}\""), &[])[0].contains(store));
    }
}

proptest! {
    #[test]
    fn no_secret_is_ever_shown(place in 0..SECRETS.len(), secret in "[A-Za-z0-9+/._~-]{12,40}", other in "[A-Za-z0-9]{12,40}", all: bool) {
        let (around, variable) = SECRETS[place];
        // Digits and a slash after a colon are a port and a path, and a slash ends the authority of a URL. These
        // secrets are excluded.
        prop_assume!(!secret.trim_start_matches(|char: char| char.is_ascii_digit()).starts_with('/'));
        prop_assume!(!(around.contains("//@@") && secret.contains('/')));
        let quoted = format!("\"{secret}\"");
        let around = around.replace("@@", "@\u{1}");
        let text = match around.contains("= @") {
            true => around.replace('@', &quoted),
            false => around.replacen('@', &secret, 1),
        };
        let text = text.replace('\u{1}', "@");
        let variable = format!("PORTCULLIS_{variable}");
        let value = match variable.ends_with("SERVERS") || variable.ends_with("STORE") {
            true => format!("postgres://u:{other}@h"),
            false => other.clone(),
        };
        for environment in [vec![], vec![(variable, value)]] {
            let loaded = load_text("gateway.toml", text.clone(), PathBuf::new(), environment).unwrap();
            let effective = Effective::of(&loaded, all).unwrap();
            let shown = format!("{effective}\n{}", serde_json::to_string(&effective.entries).unwrap());
            prop_assert!(!shown.contains(&secret) && !shown.contains(&other), "{}", shown);
            prop_assert!(shown.contains(MASK), "{}", shown);
            // The mask has the same length for every secret.
            prop_assert!(!shown.contains("*****"), "{}", shown);
        }
    }

    #[test]
    fn the_place_of_a_secret_is_shown(name in "[A-Za-z0-9_]{1,20}", scheme in "(env|file)") {
        for (around, _) in SECRETS.iter().filter(|(around, _)| around.contains("= @")) {
            let text = around.replace('@', &format!("\"{scheme}:{name}\""));
            let loaded = load_text("gateway.toml", text, PathBuf::new(), Vec::new()).unwrap();
            let shown = Effective::of(&loaded, false).unwrap().to_string();
            prop_assert!(shown.contains(&format!("\"{scheme}:{name}\"")) && !shown.contains(MASK), "{}", shown);
        }
    }

    #[test]
    fn any_text_is_shown_so_that_it_reads_the_same(name in "\\PC{0,20}|[\u{0}-\u{ff}]{0,20}", value in "\\PC{0,20}|[\u{0}-\u{ff}\"'\\\\\n]{0,20}", number in any::<i64>(), flag: bool) {
        let mut file = load(FULL, &[]).file;
        file.policy.waive = BTreeMap::from([(name.clone(), value.clone())]);
        file.route[0].name.clone_from(&value);
        file.route[0].roles = vec![value.clone(), name.clone()];
        file.route[0].claims = BTreeMap::from([
            (name.clone(), ClaimValues::One(Literal::Integer(number))),
            (value, ClaimValues::Any(vec![Literal::Boolean(flag), Literal::Text(name.clone())])),
            (name.clone() + "x", ClaimValues::One(Literal::Text(name))),
        ]);
        let written = inline(&file).unwrap().into_table().to_string();
        let loaded = load(&written, &[]);
        prop_assert_eq!(&loaded.file, &file, "{}", written);
        for all in [true, false] {
            let shown = Effective::of(&loaded, all).unwrap().to_string();
            prop_assert_eq!(&load(&shown, &[]).file, &file, "{}", shown);
        }
    }
}
