//! The effective policy: every key with its value, and where the value comes from.
//!
//! What is told is what was read: the typed file, written again. A secret is not in it, for its type does not write it.

use super::Loaded;
use super::file::{
    AuthorityTable, ClientTable, File, IssuerTable, RateLimitTable, RouteTable, TestTable, Tls, UpstreamTable,
};
use super::layer;
use super::place::Here;
use crate::diagnostic::Place;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml_edit::ser::to_document;
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value};

/// The name that stands for all names, in the table of defaults.
const NAME: &str = "NAME";
/// Where comments stand, if the line leaves room for them.
const COMMENTS_AT: usize = 48;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    Line {
        /// The file, as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            // A name may hold what would end a comment: a place shows such names without harm.
            Self::Line { file, line } => write!(f, "{}:{line}", Place::File(file.clone())),
            Self::Variable(name) => Place::Environment(name.clone()).fmt(f),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Default => map.serialize_entry("default", &true)?,
            Self::Line { file, line } => {
                map.serialize_entry("file", file)?;
                map.serialize_entry("line", line)?;
            }
            Self::Variable(name) => map.serialize_entry("environment", name)?,
        }
        map.end()
    }
}

/// One key of the policy.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Such as `route[3].upstream`.
    pub key: String,
    /// Its value; secrets are masked.
    pub value: serde_json::Value,
    /// Where the value comes from; several for a list that a variable changed in one place.
    pub origins: Vec<Origin>,
    /// Whether it is not what it would be if nobody had set it.
    pub changed: bool,
}

/// The effective policy.
#[derive(Debug)]
pub struct Effective {
    /// Every key that has a value.
    pub entries: Vec<Entry>,
    document: DocumentMut,
}

impl Effective {
    /// What this file and its environment come to. Without `all`, only what differs from the defaults.
    ///
    /// # Errors
    /// A value that TOML cannot hold.
    pub fn of(loaded: &Loaded, all: bool) -> Result<Self, String> {
        let written = inline(&loaded.file)?;
        let (defaults, empty) = (inline(&with_every_table())?, inline(&File::default())?);
        let mut walk = Walk { loaded, all, empty: &empty, entries: Vec::new() };
        let spot = Spot { here: loaded.places.root(), offset: None, replaced: false };
        let root = walk.table(written, "", &spot, Some(&defaults));
        Ok(Self { entries: walk.entries, document: DocumentMut::from(root) })
    }
}

impl fmt::Display for Effective {
    /// As TOML, with the origins as comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

fn inline(file: &File) -> Result<InlineTable, String> {
    let document = to_document(file).map_err(|error| error.to_string())?;
    Ok(document.into_table().into_inline_table())
}

/// The defaults of every table, those included that are only there once somebody writes them.
fn with_every_table() -> File {
    fn named<T: Default>() -> BTreeMap<String, T> {
        BTreeMap::from([(NAME.to_owned(), T::default())])
    }
    File {
        tls: Some(Tls::default()),
        issuer: vec![IssuerTable::default()],
        authority: Some(AuthorityTable { client: named::<ClientTable>(), ..AuthorityTable::default() }),
        upstream: named::<UpstreamTable>(),
        rate_limit: named::<RateLimitTable>(),
        route: vec![RouteTable::default()],
        test: vec![TestTable::default()],
        ..File::default()
    }
}

/// Where the file has what is looked at.
#[derive(Clone, Copy)]
struct Spot<'d> {
    here: Option<Here<'d>>,
    /// Where it begins.
    offset: Option<usize>,
    /// A variable gave the list that this is in: what the file has here does not hold.
    replaced: bool,
}

impl<'d> Spot<'d> {
    fn step(&self, way: impl FnOnce(&Here<'d>) -> Option<(Here<'d>, Option<Range<usize>>)>) -> Self {
        match self.here.as_ref().filter(|_| !self.replaced).and_then(way) {
            Some((here, span)) => {
                Self { here: Some(here), offset: span.map(|span| span.start), replaced: false }
            }
            None => Self { here: None, offset: None, replaced: self.replaced },
        }
    }
}

/// Goes through the values, the file and the defaults in step.
struct Walk<'l> {
    loaded: &'l Loaded,
    all: bool,
    /// What an empty file comes to.
    empty: &'l InlineTable,
    entries: Vec<Entry>,
}

impl<'l> Walk<'l> {
    fn table(
        &mut self,
        written: InlineTable,
        path: &str,
        spot: &Spot<'l>,
        defaults: Option<&InlineTable>,
    ) -> Table {
        let mut table = Table::new();
        for (name, value) in written {
            let key = layer::join(path, &name);
            let spot = spot.step(|here| here.entry(&name));
            let is_named = defaults.is_some_and(|defaults| defaults.contains_key(NAME));
            let default = defaults.and_then(|defaults| defaults.get(if is_named { NAME } else { &name }));
            let item = match value {
                Value::InlineTable(inner) if !inner.is_empty() => {
                    let default = default.and_then(Value::as_inline_table);
                    let mut inner = self.table(inner, &key, &spot, default);
                    // That a table is there says something where it need not be there.
                    let says = is_named || path.is_empty() && !self.empty.contains_key(&name);
                    if !self.all && !says && inner.is_empty() {
                        continue;
                    }
                    inner.set_implicit(!says);
                    Item::Table(inner)
                }
                Value::Array(list) if path.is_empty() && !list.is_empty() => {
                    Item::ArrayOfTables(self.tables(list, &key, spot, default))
                }
                value => match self.value(value, &key, &spot, default) {
                    Some(value) => Item::Value(value),
                    None => continue,
                },
            };
            table.insert(&name, item);
        }
        table
    }

    fn tables(
        &mut self,
        list: Array,
        key: &str,
        mut spot: Spot<'l>,
        default: Option<&Value>,
    ) -> ArrayOfTables {
        spot.replaced |= self.loaded.overrides.contains_key(key);
        let default = default.and_then(Value::as_array).and_then(|list| list.get(0)?.as_inline_table());
        let mut tables = ArrayOfTables::new();
        for (index, element) in list.into_iter().enumerate() {
            let spot = spot.step(|here| here.element(index));
            if let Value::InlineTable(element) = element {
                tables.push(self.table(element, &format!("{key}[{index}]"), &spot, default));
            }
        }
        tables
    }

    /// One key: noted, and written with a comment behind it.
    fn value(&mut self, value: Value, key: &str, spot: &Spot<'l>, default: Option<&Value>) -> Option<Value> {
        let is_default = default.is_some_and(|default| is_default(&value, default));
        if is_default && !self.all {
            return None;
        }
        let origins = self.origins(key, spot);
        let names = origins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let name = key.rsplit('.').next().unwrap_or(key);
        let width = format!("{name} = {value}").chars().count();
        let space = " ".repeat(COMMENTS_AT.saturating_sub(width).max(2));
        self.entries.push(Entry { key: key.to_owned(), value: json(&value), origins, changed: !is_default });
        Some(value.decorated(" ", format!("{space}# {names}")))
    }

    fn origins(&self, key: &str, spot: &Spot<'_>) -> Vec<Origin> {
        let overrides = &self.loaded.overrides;
        let mut origins = match (overrides.get(key), spot.offset) {
            (Some(variable), _) => vec![Origin::Variable(variable.clone())],
            (None, Some(offset)) => {
                let (file, line) = self.loaded.places.line(offset);
                vec![Origin::Line { file: file.to_owned(), line }]
            }
            (None, None) => Vec::new(),
        };
        // Elements of a list that variables gave one by one; they stand behind the list's own key in this order.
        let first = format!("{key}[");
        let elements = overrides.range(first.clone()..).take_while(|(known, _)| known.starts_with(&first));
        for (_, variable) in elements {
            let variable = Origin::Variable(variable.clone());
            if !origins.contains(&variable) {
                origins.push(variable);
            }
        }
        if origins.is_empty() { vec![Origin::Default] } else { origins }
    }
}

/// Whether a value is what stands in the table of defaults. Lists and tables of tables have one there that is only an
/// example of its kind.
fn is_default(value: &Value, default: &Value) -> bool {
    match (value, default) {
        (Value::Array(list), Value::Array(default)) if default.iter().any(Value::is_inline_table) => {
            list.is_empty()
        }
        (Value::InlineTable(table), Value::InlineTable(default)) if default.contains_key(NAME) => {
            table.is_empty()
        }
        (value, default) => value.to_string().trim() == default.to_string().trim(),
    }
}

/// A value for programs.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Boolean(flag) => (*flag.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Datetime(time) => time.value().to_string().into(),
        Value::Array(list) => list.iter().map(json).collect(),
        Value::InlineTable(table) => {
            table.iter().map(|(name, value)| (name.to_owned(), json(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::Literal;
    use crate::config::shown::MASK;
    use crate::config::{environment, load_text};
    use proptest::prelude::*;
    use std::path::PathBuf;

    const SHIPPED: &str = include_str!("../../gateway.toml");
    /// Every kind of value, each not its default, and no secret in it.
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

    /// What is shown of every key whose value is not the default: the key, its value as JSON, its origins.
    fn shown(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
        let effective = Effective::of(&load(text, environment), false).unwrap();
        let entries = effective.entries.iter().map(|entry| {
            let origins: Vec<_> = entry.origins.iter().map(ToString::to_string).collect();
            format!("{} = {} # {}", entry.key, entry.value, origins.join(", "))
        });
        entries.collect()
    }

    #[test]
    fn what_is_shown_reads_again_as_the_same_policy() {
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
        // A default that is given is still no change, in whichever table.
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
    fn each_value_is_told_with_its_line() {
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
    fn each_value_is_told_with_its_variable() {
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
    fn what_a_variable_replaced_is_not_the_files() {
        let text = "[[issuer]]\nissuer = \"a\"\nleeway = \"5s\"\n";
        let whole = ("PORTCULLIS_ISSUER", "[{ issuer = \"b\" }]");
        assert_eq!(
            shown(text, &[whole]),
            ["issuer[0].issuer = \"b\" # environment variable PORTCULLIS_ISSUER"]
        );
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

    /// A place for a secret: text around it in the file, and the variable that may give it instead.
    const SECRETS: [(&str, &str); 12] = [
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
        ("[[test]]\nrequest = \"GET https://host/?a=b&access_token=@&c=d\"", "TEST__0__TOKEN"),
    ];

    proptest! {
        #[test]
        fn no_secret_is_ever_shown(place in 0..SECRETS.len(), secret in "[A-Za-z0-9+/._~-]{12,40}", other in "[A-Za-z0-9]{12,40}", all: bool) {
            let (around, variable) = SECRETS[place];
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
                // And the mask is as long as ever, whatever it stands for.
                prop_assert!(!shown.contains("*****"), "{}", shown);
            }
        }

        #[test]
        fn where_a_secret_is_is_shown(name in "[A-Za-z0-9_]{1,20}", scheme in "(env|file)") {
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
                (name.clone(), Literal::Integer(number)),
                (value, Literal::Boolean(flag)),
                (name.clone() + "x", Literal::Text(name)),
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
}
