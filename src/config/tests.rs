//! Tests how the layers of a policy are merged, and which faults are reported.

use super::load::variables;
use super::*;
use crate::diagnostic::Place;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

fn read(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    load_text("gateway.toml", text.to_owned(), PathBuf::new(), environment)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    read(text, environment).expect_err("the text has faults")
}

#[test]
fn an_empty_file_is_all_defaults() {
    let file = read("", &[]).unwrap().file;
    assert_eq!(file.server.https.addresses()[0].port(), 8443);
    assert_eq!(file.server.bounds.headers, 100);
    assert!(file.route.is_empty());
}

#[test]
fn all_faults_are_reported_at_once_each_with_its_place_and_its_remedy() {
    let text = "[server]\nhtps = \"127.0.0.1:1\"\ndrain = \"30\"\nplain = \"redirct\"\n\n[[route]]\npath = \"/\"\n\n[[route]]\nacess = \"public\"\nroles = { a = 1 }\n";
    let found = faults(text, &[]);
    for expected in [
        "gateway.toml:2:1: fault: server.htps: unknown key; help: did you mean \"https\"?",
        "gateway.toml:3:1: fault: server.drain: \"30\": a number without a unit; help: write a whole number and a unit",
        "gateway.toml:4:1: fault: server.plain: unknown value \"redirct\"; help: did you mean \"redirect\"?",
        "gateway.toml:10:1: fault: route[1].acess: unknown key; help: did you mean \"access\"?",
        "gateway.toml:11:1: fault: route[1].roles: expected text or a list of texts, found a table",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{found:#?}");
    }
    assert_eq!(found.len(), 5, "{found:#?}");
}

#[test]
fn the_environment_lies_over_the_file() {
    let file = read(
        "[server]\nworkers = 1\n",
        &[
            ("PORTCULLIS_SERVER__WORKERS", "3"),
            ("PORTCULLIS_SERVER__BOUNDS__STREAMS", "7"),
            ("PORTCULLIS_SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
            ("PORTCULLIS_AUTHORITY__ISSUER", "12345"),
            ("PORTCULLIS_PORT", "tcp://10.0.0.1:80"),
            ("OTHER_SERVER__WORKERS", "9"),
        ],
    );
    let file = file.unwrap().file;
    assert_eq!((file.server.workers, file.server.bounds.streams), (3, 7));
    assert_eq!(file.server.trusted_proxies.len(), 1);
    assert_eq!(file.authority.unwrap().issuer, "12345", "digits are text where text is wanted");
}

#[test]
fn a_variable_that_names_nothing_is_a_fault_of_its_own() {
    let found = faults("", &[("PORTCULLIS_SERVER__HTPS", "x")]);
    assert!(
        found[0].starts_with("environment variable PORTCULLIS_SERVER__HTPS: fault: server.htps: unknown key"),
        "{found:?}"
    );
}

#[test]
fn a_variable_with_half_a_list_is_a_fault_and_not_one_name() {
    let text = "[[route]]\npath = \"/\"\nroles = [\"a\"]\n";
    for value in ["[suspended]", "[\"suspended\", \"left]", "\"suspended\", \"left\""] {
        let found = faults(text, &[("PORTCULLIS_ROUTE__0__NOT_ROLES", value)]);
        let is_clear = |fault: &String| {
            fault.starts_with("environment variable PORTCULLIS_ROUTE__0__NOT_ROLES: fault: ")
                && fault.contains("[\"a\", \"b\"]")
                && !fault.contains("suspended")
        };
        assert!(found.len() == 1 && is_clear(&found[0]), "{value}: {found:?}");
    }
}

#[test]
fn a_variable_sets_one_element_of_a_list_and_leaves_the_others() {
    let text = "[[issuer]]\nissuer = \"a\"\nkid = \"k\"\n[[issuer]]\nissuer = \"b\"\n";
    let loaded = read(
        text,
        &[("PORTCULLIS_ISSUER__0__SECRET", "007"), ("PORTCULLIS_ISSUER__1__AUDIENCE", "[1, \"x\"]")],
    )
    .unwrap();
    let [first, second] = loaded.file.issuer.as_slice() else { panic!("two issuers") };
    assert_eq!((first.issuer.as_str(), first.kid.as_deref()), ("a", Some("k")));
    assert_eq!(first.secret, Some(secret::Secret::Literal("007".to_owned())), "no digit is lost");
    assert_eq!((second.issuer.as_str(), second.audience.join(" ").as_str()), ("b", "1 x"));
    let place = |key: &str| loaded.places.of(key).to_string();
    assert_eq!(place("issuer[0].secret"), "environment variable PORTCULLIS_ISSUER__0__SECRET");
    assert_eq!(place("issuer[0].kid"), "gateway.toml:3:1");
    let found = faults(text, &[("PORTCULLIS_ISSUER__2__KID", "x")]);
    assert!(found[0].contains("issuer is a list of 2: it has no element \"2\""), "{found:?}");
}

#[test]
fn a_whole_table_and_a_key_of_it_both_hold() {
    let file = read(
        "[log]\nlevel = \"warn\"\naccess = \"off\"\n",
        &[("PORTCULLIS_LOG", "{ level = \"error\", format = \"json\" }"), ("PORTCULLIS_LOG__LEVEL", "debug")],
    );
    let log = file.unwrap().file.log;
    assert_eq!(
        (log.level, log.format, log.access),
        (file::LogLevel::Debug, file::LogFormat::Json, file::LogAccess::Off)
    );
}

#[test]
fn names_of_the_file_are_found_from_the_environments_spelling() {
    let text = "[upstream.My-Service]\n[upstream.other]\n";
    let file = read(text, &[("PORTCULLIS_UPSTREAM__MY_SERVICE__TIMEOUT", "1s")]).unwrap().file;
    assert_eq!(file.upstream.len(), 2);
    assert_eq!(file.upstream["My-Service"].timeout, units::Duration::seconds(1));
}

#[test]
fn a_variable_that_was_meant_for_us_is_never_ignored() {
    for (name, hint) in [
        ("PORTCULLIS_SERVER_HTTPS", "PORTCULLIS_SERVER__HTTPS"),
        ("PORTCULLIS_RATE_LIMIT_A__RATE", "rate_limit_a: unknown key"),
        ("PORTCULLIS_AUTHORITY_SECRET", "PORTCULLIS_AUTHORITY__SECRET"),
        ("PORTCULLIS_SERVER____HTTPS", "a part without a name"),
        ("PORTCULLIS_SERVER__", "a part without a name"),
        ("PORTCULLIS_SERVER__HTTPS__X", "expected an address"),
    ] {
        let found = faults("", &[(name, "1")]);
        assert!(found.len() == 1 && found[0].contains(name) && found[0].contains(hint), "{name}: {found:?}");
    }
    let deep = format!("PORTCULLIS_A{}", "__A".repeat(100_000));
    assert!(faults("", &[(&deep, "1")])[0].contains("more parts"));
    let twice = faults("", &[("PORTCULLIS_LOG__LEVEL", "info"), ("PORTCULLIS_Log__Level", "info")]);
    assert!(twice[0].contains("which PORTCULLIS_LOG__LEVEL sets too"), "{twice:?}");
}

#[test]
fn unrelated_variables_are_ignored() {
    let linked = [
        "PORTCULLIS_",
        "PORTCULLIS_PORT",
        "PORTCULLIS_PORT_8443_TCP_ADDR",
        "PORTCULLIS_SERVICE_HOST",
        "PORTCULLIS_SERVICE_PORT_HTTPS",
        "PORTCULLIS_SERVER_PORT",
        "PORTCULLIS_VERSION",
    ];
    for name in linked {
        assert!(read("", &[(name, "x")]).is_ok(), "{name}");
    }
    let text = "[authority]\nsecret = \"env:PORTCULLIS_AUTHORITY_KEY\"\n";
    assert!(read(text, &[("PORTCULLIS_AUTHORITY_KE", "x")]).is_err(), "half of its name");
    assert!(read(text, &[("PORTCULLIS_AUTHORITY_KEY", "x")]).is_ok(), "a secret that the file refers to");
    assert!(read("", &[("PORTCULLIS_AUTHORITY_KEY", "x")]).is_err());
    let named =
        [("PORTCULLIS_AUTHORITY__SECRET", "env:PORTCULLIS_AUTHORITY_KEY"), ("PORTCULLIS_AUTHORITY_KEY", "x")];
    assert!(read("", &named).is_ok(), "a secret that another variable refers to");
}

#[test]
fn only_a_value_that_is_a_reference_keeps_a_variable_from_setting_its_key() {
    let variable = [("PORTCULLIS_SERVER__WORKERS", "7")];
    for text in [
        "# env:PORTCULLIS_SERVER__WORKERS sets the number\n",
        "[server]\nworkers = 1 # or env:PORTCULLIS_SERVER__WORKERS\n",
        "[policy]\nversion = \"by env:PORTCULLIS_SERVER__WORKERS\"\n",
    ] {
        assert_eq!(read(text, &variable).unwrap().file.server.workers, 7, "{text}");
    }
    let text = "[authority]\nsecret = \"env:PORTCULLIS_SERVER__WORKERS\"\n";
    assert_ne!(read(text, &variable).unwrap().file.server.workers, 7, "a secret");
}

#[test]
fn a_variable_that_is_not_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    let (good, faults) = variables(
        [
            ("PORTCULLIS_LOG__LEVEL".into(), bad()),
            ("PORTCULLIS_LOG__FORMAT".into(), "json".into()),
            ("OTHER".into(), bad()),
        ]
        .into_iter(),
    );
    assert_eq!((good.len(), faults.len()), (1, 1));
    assert_eq!(
        faults[0].to_string(),
        "environment variable PORTCULLIS_LOG__LEVEL: fault: not UTF-8; help: use UTF-8 [portcullis help not_utf8]"
    );
}

#[test]
fn faults_of_a_long_list_are_reported_by_their_positions_in_the_file() {
    // Elements are read in chunks. The faults are in the first chunk, on both sides of a chunk boundary, and at the end
    // of the list.
    let mut text = "route = [".to_owned();
    for index in 0..200 {
        text.push_str(match index {
            3 | 64 | 198 => "7",
            4 | 63 | 65 | 199 => "{ pth = 1 }",
            _ => "{}",
        });
        text.push_str(",\n");
    }
    text.push(']');
    let found = faults(&text, &[]);
    let at = |index: usize, rest: &str| {
        let line = index + 1;
        let column = if index == 0 { 10 } else { 1 };
        let key = format!("route[{index}]{rest}");
        let column = if rest.is_empty() { column } else { column + 2 };
        format!("gateway.toml:{line}:{column}: fault: {key}: ")
    };
    let expected =
        [at(3, ""), at(4, ".pth"), at(63, ".pth"), at(64, ""), at(65, ".pth"), at(198, ""), at(199, ".pth")];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(found.starts_with(expected), "{expected}: {found}");
    }
}

#[test]
fn a_long_list_under_an_unknown_key_is_one_fault() {
    for text in [
        "[[roue]]\n".repeat(200),
        format!("roue = [{}]", "1,".repeat(200)),
        (0..200).map(|index| format!("[roue.k{index}]\n")).collect(),
        "[[server]]\n".repeat(200),
        (0..200).map(|index| format!("[route.k{index}]\n")).collect(),
    ] {
        let found = faults(&text, &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}

#[test]
fn the_file_is_what_is_left_of_it_without_its_faults() {
    let routes = |bad: &str| -> String {
        (0..200)
            .map(|index| format!("[[route]]\npath = \"/{index}\"\n{}", if index == 150 { bad } else { "" }))
            .collect()
    };
    let survey = |text: String| survey_text("gateway.toml", text, PathBuf::new(), Vec::new());
    let (sound, none) = survey(routes(""));
    let (left, one) = survey(format!("{}[serve]\n", routes("rols = 1\n")));
    assert_eq!((none.len(), one.len()), (0, 2), "{one:#?}");
    assert_eq!(left.unwrap().file, sound.unwrap().file);
}

#[test]
fn each_bad_element_of_a_list_is_reported_by_its_own_position() {
    let text = "[server]\ntrusted_proxies = [\"a\", \"10.0.0.0/8\", \"b\", \"10.0.0.1/8\"]\nhttps = [\"127.0.0.1:1\", \":2\"]\n[[issuer]]\ntypes = [[], \"JWT\", {}]\n";
    let found = faults(text, &[]);
    for expected in [
        "gateway.toml:2:20: fault: server.trusted_proxies[0]: \"a\": not an address",
        "gateway.toml:2:39: fault: server.trusted_proxies[2]: \"b\": not an address",
        "gateway.toml:2:44: fault: server.trusted_proxies[3]: \"10.0.0.1/8\": the address has bits",
        "gateway.toml:3:25: fault: server.https[1]: \":2\": a port without an address",
        "gateway.toml:5:10: fault: issuer[0].types[0]: expected text, found a list",
        "gateway.toml:5:21: fault: issuer[0].types[2]: expected text, found a table",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected}\n{found:#?}");
    }
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn a_list_does_not_stand_for_a_table() {
    for text in [
        "tls = [\"c.pem\", \"k.pem\"]",
        "server = []",
        "route = [[]]",
        "upstream = { a = [] }",
        "issuer = [1]",
    ] {
        let found = faults(text, &[]);
        assert!(found[0].contains("expected a table"), "{text}: {found:?}");
    }
}

#[test]
fn versions_without_quotes_are_read_as_they_are_written() {
    let file = read("[tls]\nmin_version = 1.3\n[[issuer]]\nkid = 2026-01-01\n", &[]).unwrap().file;
    assert_eq!(file.tls.unwrap().min_version, values::TlsVersion::Tls13);
    assert_eq!(file.issuer[0].kid.as_deref(), Some("2026-01-01"));
}

#[test]
fn a_key_with_any_name_is_quoted_as_it_is_written() {
    let text = "[server]\n\"a`, expected one of `b\" = 1\n\"x.y\" = 1\n\"\\u001b[2J\" = 1\n";
    let found = faults(text, &[]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(
        found[0].starts_with("gateway.toml:2:1: fault: server.\"a`, expected one of `b\": unknown key"),
        "{found:#?}"
    );
    assert!(found[1].starts_with("gateway.toml:3:1: fault: server.\"x.y\": unknown key"), "{found:#?}");
    assert!(!found[2].contains('\u{1b}'), "{found:#?}");
}

#[test]
fn a_text_that_is_no_toml_is_reported_by_line() {
    let found = faults("[server]\nhttps = \n", &[]);
    assert!(found[0].starts_with("gateway.toml:2:"), "{found:?}");
    assert_eq!(faults("a = 1\na = 2\n", &[]).len(), 1);
}

#[test]
fn a_secret_is_not_printed() {
    for text in [
        "[authority]\nsecret = [\"hush\"]\n",
        "[[issuer]]\nsecret = { hush = 1 }\n",
        "issuer = \"hush\"\n",
        "authority = \"hush\"\n",
        "[authority]\nsecret = \"hush\" hush\n",
        "[authority]\nsecret = \"hush\n",
        "[authority]\nsecret = hush\n",
        "[authority]\nsecret = \"$HUSH\"\nsecert = \"hush\"\n",
        "[server.bounds]\nheaders = \"hush\"\n",
    ] {
        assert!(!faults(text, &[]).join("\n").to_lowercase().contains("hush"), "{text}");
    }
    assert!(!faults("", &[("PORTCULLIS_AUTHORITY", "hush")])[0].contains("hush"));
    assert!(!faults("", &[("PORTCULLIS_AUTHORITY__SECRET", "[4711]")])[0].contains("4711"));
}

#[test]
fn a_file_without_text_is_refused() {
    let dir = std::env::temp_dir().join(format!("portcullis-config-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("latin1"), b"# caf\xe9\n").unwrap();
    for (path, what) in [("none", "No such file"), (".", "not a file"), ("latin1", "not UTF-8 at byte 5")] {
        let found = load(&dir.join(path)).unwrap_err();
        assert!(found[0].to_string().contains(what), "{path}: {found:?}");
    }
    assert!(load(Path::new("/dev/null")).is_err(), "a device could be without end");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(&deep, &[]).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic_or_lose_its_place(
        at in 0..4000_usize, len in 0..200_usize, splice in "[\\[\\]{}\"'=.,#\n a-z0-9\u{1b}é]{0,40}", name in "[A-Z_0-9é\n]{0,30}", value in ".{0,30}"
    ) {
        let mut text: Vec<char> = include_str!("../../gateway.toml").chars().collect();
        let (start, end) = (at.min(text.len()), (at + len).min(text.len()));
        text.splice(start..end, splice.chars());
        let text: String = text.into_iter().collect();
        let lines = text.split('\n').count();
        let variables = vec![(format!("PORTCULLIS_{name}"), value)];
        if let Err(faults) = load_text("gateway.toml", text, PathBuf::new(), variables) {
            proptest::prop_assert!(!faults.is_empty());
            for fault in faults {
                proptest::prop_assert!(!fault.to_string().contains(char::is_control), "{:?}", fault);
                if let Place::Line { line, .. } = fault.place {
                    proptest::prop_assert!((1..=lines).contains(&line));
                }
            }
        }
    }
}
