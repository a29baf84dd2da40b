//! Tests the schema against the reader, the reference and every published policy.

use super::*;
use crate::config::reading::ValueError;
use crate::config::{effective::Effective, load_text};
use jsonschema::Validator;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use toml_edit::ImDocument;

static WHOLE: LazyLock<Validator> = LazyLock::new(|| jsonschema::draft7::new(&schema()).unwrap());

/// Parses TOML into the values that an editor validates against the schema.
fn values(text: &str) -> Value {
    let document = ImDocument::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    serde_json::to_value(layer::of_table(document.as_table(), text, 0).unwrap()).unwrap()
}

/// Returns the faults that the schema reports for a policy.
fn faults(text: &str) -> Vec<String> {
    let values = values(text);
    let found = WHOLE.iter_errors(&values).map(|error| format!("{} {error}", error.instance_path()));
    found.collect()
}

fn is_read(text: &str) -> bool {
    load_text("gateway.toml", text.to_owned(), PathBuf::new(), Vec::new()).is_ok()
}

#[test]
fn the_schema_that_is_shipped_is_that_of_the_types() {
    let shipped = include_str!("../../../docs/gateway.schema.json");
    let made = format!("{:#}\n", schema());
    assert!(
        shipped == made,
        "docs/gateway.schema.json is behind: cargo run -- config schema > docs/gateway.schema.json"
    );
}

/// Collects the schemas of all keys and tables in this schema, by their names in the reference.
fn all<'s>(schema: &'s Value, name: &str, found: &mut Vec<(String, &'s Value)>) {
    found.push((name.to_owned(), schema));
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        all(property, &if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, found);
    }
    for (inner, name) in
        [(&schema["items"], name.to_owned()), (&schema["additionalProperties"], format!("{name}.NAME"))]
    {
        if inner["properties"].is_object() {
            all(inner, &name, found);
        }
    }
}

#[test]
fn the_schema_has_every_key_of_the_reference_in_its_words_and_no_other() {
    let schema = schema();
    let mut found = Vec::new();
    all(&schema, "", &mut found);
    let described = Described::read(REFERENCE);
    assert!(described.keys.len() > 60, "the reference is taken apart");
    let tables: BTreeSet<&str> =
        found.iter().filter(|(_, s)| s.to_string().contains("\"properties\"")).map(|(n, _)| &**n).collect();
    for (name, schema) in &found {
        assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        match described.keys.get(&**name) {
            Some(section) => {
                assert_eq!(schema["description"], section.text, "{name}");
                assert_eq!(schema["examples"].as_array().map(Vec::len), Some(1), "{name}");
                assert_eq!(
                    schema.get("default").is_some(),
                    section.facts.contains(" · default `") && !section.facts.contains("default `{}`"),
                    "{name}"
                );
            }
            None => assert!(tables.contains(&**name) || name == "route.sources", "{name}"),
        }
    }
    for name in described.keys.keys() {
        assert!(found.iter().any(|(known, _)| known == name), "{name}");
    }
}

#[test]
fn every_table_with_keys_refuses_others() {
    fn tables(schema: &Value, found: &mut usize) {
        if schema.get("properties").is_some_and(|properties| properties.get("type").is_none()) {
            assert_eq!(schema["additionalProperties"], false, "{schema:#}");
            *found += 1;
        }
        match schema {
            Value::Array(list) => list.iter().for_each(|inner| tables(inner, found)),
            Value::Object(object) => object.values().for_each(|inner| tables(inner, found)),
            _ => {}
        }
    }
    let mut found = 0;
    tables(&schema(), &mut found);
    assert!(found > 15, "{found}");
}

#[test]
fn every_policy_that_operators_are_shown_fits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut policies =
        vec![("gateway.toml".to_owned(), std::fs::read_to_string(root.join("gateway.toml")).unwrap())];
    let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in
        pages.chain([root.join("README.md")]).filter(|page| page.extension().is_some_and(|e| e == "md"))
    {
        let text = std::fs::read_to_string(&page).unwrap();
        for example in text.split("```toml\n").skip(1) {
            let example = example.split("```").next().unwrap();
            policies.push((page.display().to_string(), example.to_owned()));
        }
    }
    assert!(policies.len() > 8, "the examples are found");
    for (place, policy) in policies {
        assert_eq!(faults(&policy), Vec::<String>::new(), "{place}:\n{policy}");
    }
    // Each example of the reference is valid for its key.
    for (name, Section { facts, .. }) in Described::read(REFERENCE).keys {
        let example =
            facts.split(" · ").find_map(|f| f.strip_prefix("example `")?.strip_suffix('`')).unwrap();
        let (table, key) = name.rsplit_once('.').unwrap();
        let header = match table.split('.').next().unwrap() {
            list @ ("issuer" | "route" | "test") => {
                format!("[[{list}]]\n{}", table.replacen(list, "", 1).replacen('.', "", 1))
            }
            _ if table == "tls.certificates" => format!("[[{table}]]\n"),
            _ => format!("[{table}]\n"),
        };
        let policy = match header.split_once('\n') {
            _ if table == "route.split" => format!("[[route]]\n[[{table}]]\n{key} = {example}\n"),
            Some((header, inner)) if !inner.is_empty() => {
                format!("{header}\n{inner}.{key} = {example}\n")
            }
            _ => format!("{header}{key} = {example}\n"),
        };
        assert_eq!(faults(&policy), Vec::<String>::new(), "{policy}");
        assert!(is_read(&policy), "{policy}");
    }
}

#[test]
fn the_output_of_config_show_conforms_to_the_schema() {
    let text = include_str!("../../../gateway.toml");
    let loaded = load_text("gateway.toml", text.to_owned(), PathBuf::new(), Vec::new()).unwrap();
    assert_eq!(faults(&Effective::of(&loaded, true).unwrap().to_string()), Vec::<String>::new());
}

#[test]
fn each_kind_of_fault_is_seen_where_it_is_and_its_neighbour_is_not() {
    for (good, bad, place) in [
        ("server.https = \"127.0.0.1:1\"", "server.htps = \"127.0.0.1:1\"", "/server"),
        ("server.https = \"\"", "server.https = \":8443\"", "/server/https"),
        ("server.https = [\"[::1]:1\"]", "server.https = [\"[::1]\"]", "/server/https/0"),
        ("server.workers = 1", "server.workers = -1", "/server/workers"),
        ("server.workers = 1", "server.workers = \"one\"", "/server/workers"),
        ("server.drain = \"30s\"", "server.drain = \"30\"", "/server/drain"),
        ("server.drain = \"30s\"", "server.drain = 30", "/server/drain"),
        ("server.drain = \"30s\"", "server.drain = \"30sec\"", "/server/drain"),
        ("server.plain = \"serve\"", "server.plain = \"srve\"", "/server/plain"),
        (
            "server.bounds.body_size = \"1MiB\"",
            "server.bounds.body_size = \"1MB\"",
            "/server/bounds/body_size",
        ),
        (
            "server.bounds.streams = 4294967295",
            "server.bounds.streams = 4294967296",
            "/server/bounds/streams",
        ),
        (
            "server.trusted_proxies = \"10.0.0.0/8\"",
            "server.trusted_proxies = \"10.0.0.0/33\"",
            "/server/trusted_proxies",
        ),
        ("rate_limit.a.rate = \"10/s\"", "rate_limit.a.rate = \"0/s\"", "/rate_limit/a/rate"),
        ("rate_limit.a.rate = \"10/s\"", "rate_limit.a.rate = \"10/w\"", "/rate_limit/a/rate"),
        ("tls.min_version = \"1.3\"", "tls.min_version = \"1.1\"", "/tls/min_version"),
        ("authority.secret = \"env:S\"", "authority.secret = \"$S\"", "/authority/secret"),
        ("authority.cookies = true", "authority.cookies = \"yes\"", "/authority/cookies"),
        ("authority.role_limit = 1", "authority.role_limit = 0", "/authority/role_limit"),
        ("authority.role_limit = \"all\"", "authority.role_limit = \"none\"", "/authority/role_limit"),
        ("authority.claims = { a = \"b\" }", "authority.claims = { a = [] }", "/authority/claims/a"),
        ("authority.client.a = {}", "authority.client.a = []", "/authority/client/a"),
        ("upstream.a.servers = \"http://a\"", "upstream.a.servers = {}", "/upstream/a/servers"),
        ("upstream = {}", "upstream = []", "/upstream"),
        ("[[route]]\nroles = \"a\"", "[[route]]\nroels = \"a\"", "/route/0"),
        ("[[route]]\nfresh = \"10m\"", "[[route]]\nfresh = \"soon\"", "/route/0/fresh"),
        ("[[route]]\nclaims = { a = 1 }", "[[route]]\nclaims = { a = { b = 1 } }", "/route/0/claims/a"),
        (
            "[[route]]\nclaims = { a = [1, \"b\"] }",
            "[[route]]\nclaims = { a = [[1]] }",
            "/route/0/claims/a/0",
        ),
        ("rule.a.roles = \"a\"", "rule.a.role = \"a\"", "/rule/a"),
        ("[[route]]\nsources = [\"query\"]", "[[route]]\nsources = [\"body\"]", "/route/0/sources/0"),
        (
            "[[route]]\nsources = [{ header = \"A\" }]",
            "[[route]]\nsources = [{ headr = \"A\" }]",
            "/route/0/sources/0",
        ),
        ("[[route]]\n", "[route]\n", "/route"),
        ("[[test]]\nexpect = { allow = true }", "[[test]]\nexpect = { alow = true }", "/test/0/expect"),
        (
            "[[test]]\nexpect = { status = 403 }",
            "[[test]]\nexpect = { status = 70000 }",
            "/test/0/expect/status",
        ),
    ] {
        assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        assert!(is_read(good), "{good}");
        let found = faults(bad);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{place} ")), "{bad}: {found:#?}");
        assert!(!is_read(bad), "the schema refuses what is read: {bad}");
    }
}

#[test]
fn nothing_stands_beside_a_reference_and_nothing_is_null() {
    let text = schema().to_string();
    for word in ["\"$ref\"", "\"definitions\"", "\"allOf\"", "\"null\"", ":null", "\"format\":\""] {
        assert!(!text.contains(word), "{word}");
    }
}

fn validator<T: JsonSchema>() -> Validator {
    jsonschema::draft7::new(&SchemaGenerator::default().root_schema_for::<T>().to_value()).unwrap()
}

/// Checks that the schema and the parser agree on a text. The parser may reject more than the pattern, but only with
/// these errors.
fn agree<T: FromStr<Err = ValueError>>(
    validator: &Validator,
    text: &str,
    beyond: &[&str],
) -> Result<(), TestCaseError> {
    let parsed = text.parse::<T>().map(drop);
    let fits = validator.is_valid(&json!(text));
    let is_beyond = parsed.as_ref().is_err_and(|why| beyond.iter().any(|word| why.found.contains(word)));
    prop_assert!(fits == parsed.is_ok() || fits && is_beyond, "{:?}: {} and {:?}", text, fits, parsed);
    Ok(())
}

static DURATION: LazyLock<Validator> = LazyLock::new(validator::<Duration>);
static SIZE: LazyLock<Validator> = LazyLock::new(validator::<ByteSize>);
static RATE: LazyLock<Validator> = LazyLock::new(validator::<Rate>);
static CIDR: LazyLock<Validator> = LazyLock::new(validator::<Cidr>);
static LISTEN: LazyLock<Validator> = LazyLock::new(validator::<Listen>);
static SECRETS: LazyLock<Validator> = LazyLock::new(validator::<Secret>);
static FRESH: LazyLock<Validator> = LazyLock::new(validator::<Fresh>);
static ROLES: LazyLock<Validator> = LazyLock::new(validator::<RoleLimit>);

/// Generates texts that combine these parts in any order, and arbitrary texts.
fn texts(near: &'static str, parts: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![4 => near, 2 => parts, 1 => "\\PC{0,12}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_duration_fits_exactly_where_it_is_read(text in texts("[0-9]{0,14}(ms|s|m|h|d|S|w|)", "[ 0-9+.msh]{0,5}")) {
        agree::<Duration>(&DURATION, &text, &["longer than ten years"])?;
        let fresh = serde_json::from_value::<Fresh>(json!(text));
        prop_assert!(FRESH.is_valid(&json!(text)) == fresh.is_ok() || fresh.is_err() && DURATION.is_valid(&json!(text)));
    }

    #[test]
    fn a_size_fits_exactly_where_it_is_read(text in texts("[0-9]{0,14}(B|KiB|MiB|GiB|K|MB|TiB|)", "[ 0-9+.KMGiB]{0,5}")) {
        agree::<ByteSize>(&SIZE, &text, &["more than 1024GiB"])?;
    }

    #[test]
    fn a_rate_fits_exactly_where_it_is_read(text in texts("[0-9]{0,12}/(s|m|h|d|w|)", "[ 0-9+./smhd]{0,5}")) {
        agree::<Rate>(&RATE, &text, &["not a whole number below"])?;
    }

    #[test]
    fn a_limit_of_roles_fits_exactly_where_it_is_read(text in texts("all|[+-]?[0-9]{0,12}", "[ 0-9+al]{0,5}")) {
        let read = serde_json::from_value::<RoleLimit>(json!(text));
        prop_assert_eq!(ROLES.is_valid(&json!(text)), read.is_ok(), "{:?}", text);
    }

    #[test]
    fn a_network_of_version_4_fits_exactly_where_it_is_read(
        text in texts("[0-9]{1,3}(\\.[0-9]{1,3}){3}(/(3?[0-9]|[0-9]{0,3}))?", "[0-9./ ]{0,12}")
    ) {
        agree::<Cidr>(&CIDR, &text, &["bits set after its prefix"])?;
    }

    #[test]
    fn a_network_of_version_6_that_is_read_fits(bits in any::<u128>(), keep in 0..8_u32, prefix in 0..140_u8) {
        let address = std::net::Ipv6Addr::from(bits & u128::MAX.checked_shl(128 - keep * 16).unwrap_or(0));
        for text in [format!("{address}/{prefix}"), address.to_string(), format!("{address}:/{prefix}"), format!("::ffff:1.2.3.4/{prefix}")] {
            if text.parse::<Cidr>().is_ok() {
                prop_assert!(CIDR.is_valid(&json!(text)), "{}", text);
            }
        }
        let text = format!("{address}/{prefix}");
        prop_assert!(prefix <= 128 || !CIDR.is_valid(&json!(text)), "{}", text);
    }

    #[test]
    fn an_address_fits_exactly_where_it_is_read(
        text in texts("[0-9]{1,3}(\\.[0-9]{1,3}){3}:(65[0-9]{3}|[0-9]{1,6})", "[0-9.:*]{0,12}|localhost:[0-9]{1,3}"), bits in any::<u128>(), port in any::<u16>()
    ) {
        let read = serde_json::from_value::<Listen>(json!(text));
        prop_assert_eq!(LISTEN.is_valid(&json!(text)), read.is_ok(), "{:?}", text);
        let text = format!("[{}]:{port}", std::net::Ipv6Addr::from(bits));
        prop_assert!(LISTEN.is_valid(&json!([text])), "{}", text);
    }

    #[test]
    fn a_secret_fits_exactly_where_it_is_read(
        text in texts(" ?(env|ENV|Env|file|File|path|environment|s)( ?:)?[A-Z=\u{0}/\n_.: -]{0,3}", " ?\\$[{(]?[{(]?[A-Za-z0-9_]{0,3}[})]{0,2} ?\n?")
    ) {
        agree::<Secret>(&SECRETS, &text, &[])?;
    }
}
