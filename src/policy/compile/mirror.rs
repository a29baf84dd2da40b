//! Compiles `mirror` of a route.

use super::Faults;
use super::upstreams::Upstreams;
use crate::config::file::RouteSection;
use crate::forward::{Audience, Mirror, Protocol, Upstream};
use std::sync::Arc;

/// The largest bound on the body of a copy, in bytes. Each copy in flight holds its body in memory.
const BODY_MAX: u64 = 1 << 20;

/// A mirror without the audience of its upstream.
#[derive(Debug)]
pub(super) struct Draft {
    upstream: Arc<Upstream>,
    percent: u16,
    body: usize,
}

impl Draft {
    pub(super) fn complete(self, audience: impl Fn(&str) -> Option<Arc<Audience>>) -> Option<Box<Mirror>> {
        let audience = audience(&self.upstream.name)?;
        let Self { upstream, percent, body } = self;
        Some(Box::new(Mirror { upstream, audience, percent, body }))
    }
}

pub(super) fn compile(
    key: &str,
    table: &RouteSection,
    upstreams: &Upstreams,
    faults: &mut Faults<'_>,
) -> Option<Draft> {
    let at = format!("{key}.mirror");
    if table.mirror.is_empty() {
        for (name, is_set) in
            [("mirror_percent", table.mirror_percent.is_some()), ("mirror_body", table.mirror_body.is_some())]
        {
            if is_set {
                let hint = "mirror = \"NAME\" of an [upstream.NAME], or remove this";
                faults.fault("impossible_rule", &format!("{key}.{name}"), "set without mirror", hint);
            }
        }
        return None;
    }
    let percent = table.mirror_percent.unwrap_or(100);
    if percent > 100 {
        let hint = "a percentage from 0 to 100";
        faults.fault("bad_value", &format!("{key}.mirror_percent"), percent.to_string(), hint);
    }
    let body = table.mirror_body.map_or(0, |size| size.as_u64());
    if body > BODY_MAX {
        let hint = "at most 1MiB: each copy in flight holds its body in memory";
        faults.fault("bad_value", &format!("{key}.mirror_body"), format!("{body} bytes"), hint);
    }
    if table.mirror == table.upstream || table.split.iter().any(|share| share.upstream == table.mirror) {
        let found = format!("\"{}\" gets the requests themselves", table.mirror);
        faults.fault("bad_value", &at, found, "another upstream, which may get requests twice");
    }
    match upstreams.get(&table.mirror) {
        Some(Some(upstream)) if upstream.protocol == Protocol::Http2 => {
            let found = "an upstream over HTTP/2";
            faults.fault("impossible_rule", &at, found, "an upstream with protocol = \"http1\"");
            None
        }
        Some(Some(upstream)) => {
            let body = usize::try_from(body).unwrap_or_default();
            Some(Draft { upstream: upstream.clone(), percent, body })
        }
        Some(None) => {
            faults.fault("impossible_rule", &at, "the built-in echo", "an upstream with servers");
            None
        }
        None => {
            faults.undefined(&at, "upstream", &table.mirror, upstreams.keys().map(String::as_str));
            None
        }
    }
}
