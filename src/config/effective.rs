//! The effective policy: every key with its value and the origin of the value.
//!
//! The effective policy is serialized from the typed file, so it shows the values that the gateway has read. Secrets
//! are masked.

use super::Loaded;
use super::file::{
    AcmeSection, ApiKeysSection, AuthoritySection, CertificateSection, ClientCertificatesSection,
    ClientSection, CorsSection, File, HealthSection, IntrospectionSection, IssuerSection,
    ProxyProtocolSection, RateLimitSection, ResourceSection, RouteSection, RuleSection, ServerSection,
    SharedSection, SignalsSection, SplitSection, TestSection, TlsSection, UpstreamSection,
    UpstreamTlsSection,
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

/// The placeholder name of tables such as `[upstream.NAME]` in the defaults.
const NAME: &str = "NAME";
/// The column at which comments begin, unless the value extends beyond it.
const COMMENTS_AT: usize = 48;

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The default.
    Default,
    /// A line of the policy file.
    Line {
        /// The path of the file, as the operator wrote it.
        file: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            // A line break in the file name would end the TOML comment. `Place` escapes line breaks.
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
pub(crate) struct Entry {
    /// The path of the key, such as `route[3].upstream`.
    pub key: String,
    /// The value, with secrets masked.
    pub value: serde_json::Value,
    /// The origins of the value. If variables set single elements of a list, the list has several origins.
    pub origins: Vec<Origin>,
    /// Whether the value differs from the default.
    pub changed: bool,
}

/// The effective policy.
#[derive(Debug)]
pub(crate) struct Effective {
    /// Every key with a value.
    pub entries: Vec<Entry>,
    document: DocumentMut,
}

impl Effective {
    /// Returns the effective policy. Without `all`, the policy contains only values that differ from the default.
    ///
    /// # Errors
    /// Returns an error for a value that TOML cannot represent.
    pub(crate) fn of(loaded: &Loaded, all: bool) -> Result<Self, String> {
        let written = inline(&loaded.file)?;
        let (defaults, empty) = (inline(&with_every_table())?, inline(&File::default())?);
        let mut walk = Walk { loaded, all, empty: &empty, entries: Vec::new() };
        let spot = Spot { here: loaded.places.root(), offset: None, replaced: false };
        let root = walk.table(written, "", &spot, Some(&defaults));
        Ok(Self { entries: walk.entries, document: DocumentMut::from(root) })
    }
}

impl fmt::Display for Effective {
    /// Writes TOML, with the origins as comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

fn inline(file: &File) -> Result<InlineTable, String> {
    let document = to_document(file).map_err(|error| error.to_string())?;
    Ok(document.into_table().into_inline_table())
}

fn named<T: Default>() -> BTreeMap<String, T> {
    BTreeMap::from([(NAME.to_owned(), T::default())])
}

/// Returns the defaults of every table, including optional tables and tables of names.
pub(super) fn with_every_table() -> File {
    File {
        server: ServerSection {
            proxy_protocol: Some(ProxyProtocolSection::default()),
            ..ServerSection::default()
        },
        tls: Some(TlsSection {
            certificates: vec![CertificateSection::default()],
            acme: Some(AcmeSection::default()),
            ..TlsSection::default()
        }),
        client_certificates: named::<ClientCertificatesSection>(),
        issuer: vec![IssuerSection {
            introspection: Some(IntrospectionSection::default()),
            ..IssuerSection::default()
        }],
        authority: Some(AuthoritySection { client: named::<ClientSection>(), ..AuthoritySection::default() }),
        api_keys: Some(ApiKeysSection::default()),
        shared: Some(SharedSection::default()),
        upstream: BTreeMap::from([(
            NAME.to_owned(),
            UpstreamSection {
                health: Some(HealthSection::default()),
                tls: Some(UpstreamTlsSection::default()),
                ..UpstreamSection::default()
            },
        )]),
        rate_limit: named::<RateLimitSection>(),
        resource: named::<ResourceSection>(),
        cors: named::<CorsSection>(),
        signals: named::<SignalsSection>(),
        rule: named::<RuleSection>(),
        route: vec![RouteSection { split: vec![SplitSection::default()], ..RouteSection::default() }],
        test: vec![TestSection::default()],
        ..File::default()
    }
}

/// Returns the defaults of the tables that are always there, and of tables of names.
pub(super) fn without_optional_tables() -> File {
    File {
        client_certificates: named(),
        issuer: vec![IssuerSection::default()],
        upstream: named(),
        rate_limit: named(),
        resource: named(),
        cors: named(),
        signals: named(),
        rule: named(),
        route: vec![RouteSection::default()],
        ..File::default()
    }
}

/// The position of a value in the file's document.
#[derive(Clone, Copy)]
struct Spot<'d> {
    here: Option<Here<'d>>,
    /// The byte offset at which the node begins.
    offset: Option<usize>,
    /// Whether a variable replaced an enclosing list. The file's value is then not in effect.
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

/// Walks through the values, the file's document and the defaults in parallel.
struct Walk<'l> {
    loaded: &'l Loaded,
    all: bool,
    /// The values of a policy file without any keys.
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
                    // The presence of an optional or named table has an effect. The table is therefore shown even if
                    // all its values are defaults.
                    let says = is_named || path.is_empty() && !self.empty.contains_key(&name);
                    if !self.all && !says && inner.is_empty() {
                        continue;
                    }
                    inner.set_implicit(!says);
                    Item::Table(inner)
                }
                Value::Array(list) if !list.is_empty() && default.is_some_and(is_list_of_tables) => {
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

    /// Records a key. Returns its value with the origins as a comment, or `None` if the key is not shown.
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
        // The map is sorted, so the keys of a list's elements follow the key of the list.
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

/// Returns whether a default is that of a list of tables.
fn is_list_of_tables(default: &Value) -> bool {
    default.as_array().is_some_and(|list| list.iter().any(Value::is_inline_table))
}

/// Returns whether a value equals its default. In the defaults, each list of tables contains an example element,
/// although the actual default is empty.
fn is_default(value: &Value, default: &Value) -> bool {
    match (value, default) {
        (Value::Array(list), default) if is_list_of_tables(default) => list.is_empty(),
        (Value::InlineTable(table), Value::InlineTable(default)) if default.contains_key(NAME) => {
            table.is_empty()
        }
        (value, default) => value.to_string().trim() == default.to_string().trim(),
    }
}

/// Converts a value to JSON.
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
mod tests;
