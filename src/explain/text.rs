//! Formats an explanation for operators: one fact per line, in the order of the pipeline's stages.

use super::{CrossOrigin, Explanation, Outcome, Responder};
use std::fmt;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} from {}", self.method, Line(&self.url), self.client)?;
        if let Some(path) = &self.path {
            let host = self.host.as_deref().unwrap_or("no host");
            writeln!(f, "  read as   {} {}{}", self.method, Line(host), Line(path))?;
        }
        if let Some(demand) = &self.client_certificate {
            writeln!(f, "  client certificate {}", Line(demand))?;
        }
        match &self.route {
            Some(route) => {
                let methods =
                    if route.methods.is_empty() { String::new() } else { route.methods.join(",") + " " };
                let host = if route.host == "*" { "" } else { &route.host };
                writeln!(
                    f,
                    "  route     {}: matches {methods}{host}{}",
                    Line(&route.name),
                    Line(&route.path)
                )?;
                for (name, value) in &route.headers {
                    writeln!(f, "            {name}: {}", Line(value))?;
                }
                for (name, value) in &route.params {
                    writeln!(f, "            {{{name}}} = {}", Line(value))?;
                }
                if let Some(name) = &route.cors {
                    writeln!(f, "            cors {}: preflights are answered without a token", Line(name))?;
                }
                if !route.sources.is_empty() {
                    writeln!(
                        f,
                        "            looks for a credential in: {}",
                        Line(&route.sources.join(", "))
                    )?;
                }
                if route.login_page {
                    writeln!(f, "            a browser without a valid token is sent to the login page")?;
                }
                if let Some(field) = &route.csrf_field {
                    writeln!(f, "            forms may have the CSRF token in the field {}", Line(field))?;
                }
                if route.websocket {
                    writeln!(f, "            forwards WebSockets")?;
                }
            }
            None => writeln!(f, "  route     none")?,
        }
        if let Some(metadata) = &self.resource_metadata {
            writeln!(f, "  resource  refusals name its metadata, {}", Line(metadata))?;
        }
        for near in &self.near {
            writeln!(
                f,
                "  not       {} ({}): {}",
                Line(&near.route),
                Line(&near.covers),
                near.why.describe()
            )?;
        }
        for limit in self.limits.iter().filter(|limit| limit.before_token) {
            writeln!(f, "  limit     {}: {}, by {}", limit.name, limit.quota, Line(&limit.by))?;
        }
        if let Some(caller) = &self.caller {
            let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            writeln!(f, "  caller    {} of {}", Line(&caller.subject), Line(&caller.issuer))?;
            writeln!(f, "            roles: {}", Line(&list(&caller.roles)))?;
            writeln!(f, "            scopes: {}", Line(&list(&caller.scopes)))?;
        }
        for checked in &self.checks {
            let (mark, word) = match &checked.outcome {
                None => ("not asked", String::new()),
                Some(Outcome::Passed | Outcome::Redirected) => ("passed   ", String::new()),
                Some(Outcome::Refused(denial)) => ("REFUSED  ", format!(": {}", denial.code())),
            };
            writeln!(f, "  {mark} {}{word}", Line(&checked.asks))?;
        }
        for limit in self.limits.iter().filter(|limit| !limit.before_token) {
            writeln!(f, "  limit     {}: {}, by {}", limit.name, limit.quota, Line(&limit.by))?;
        }
        let preflight = self.cross_origin.as_ref().filter(|known| known.is_preflight);
        match (&self.outcome, self.shadow) {
            (Outcome::Passed, _) if preflight.is_some_and(|known| known.is_allowed != Some(true)) => {
                writeln!(f, "verdict: the gateway answers the preflight, and does not allow the request")?;
            }
            (Outcome::Passed, _) if preflight.is_some() => {
                writeln!(f, "verdict: passes: the gateway answers the preflight, without a token")?;
            }
            (Outcome::Passed, _) => writeln!(f, "verdict: passes")?,
            (Outcome::Redirected, _) => writeln!(f, "verdict: redirected to https, with 308")?,
            (Outcome::Refused(denial), shadow) => {
                let status = denial.status().as_u16();
                let passes = if shadow { "; passes anyway: the route is in shadow mode" } else { "" };
                writeln!(f, "verdict: refused with {status} {}: {}{passes}", denial.code(), denial.detail())?;
                // Bearer tokens are what a reader expects.
                if !self.challenge.is_empty() && self.challenge != ["Bearer"] {
                    writeln!(f, "  challenge {}", self.challenge.join(", "))?;
                }
                if let Some(reason) = &self.reason {
                    writeln!(f, "  because {}", Line(reason))?;
                }
            }
        }
        if let Some(cross_origin) = &self.cross_origin {
            write!(f, "{cross_origin}")?;
        }
        if let Some(outgoing) = &self.outgoing {
            let servers = outgoing.servers.join(", ");
            let servers = if servers.is_empty() { servers } else { format!(" ({servers})") };
            if let Some(split) = &outgoing.split {
                let by = outgoing.split_by.as_deref().unwrap_or_default();
                writeln!(f, "split among {}; {}", Line(split), Line(by))?;
            }
            if let Some(copies) = &outgoing.copies {
                writeln!(f, "copies {}", Line(copies))?;
            }
            let path = Line(&outgoing.path);
            match outgoing.responder {
                Responder::Redirect => {
                    let status = outgoing.status.map_or_else(String::new, |status| format!("with {status} "));
                    return writeln!(f, "redirected {status}to {path}");
                }
                Responder::Preflight => {
                    let status = outgoing.status.map_or_else(String::new, |status| format!(" with {status}"));
                    return writeln!(f, "the preflight is answered{status}");
                }
                Responder::Upstream => writeln!(f, "upstream {}{servers} receives:", outgoing.upstream)?,
                Responder::Authority => writeln!(f, "the authority answers:")?,
                Responder::Gateway => writeln!(f, "the gateway answers:")?,
                Responder::Files => writeln!(f, "the gateway answers with a file{servers}:")?,
            }
            writeln!(f, "  {} {path}", outgoing.method)?;
            for (name, value) in &outgoing.headers {
                writeln!(f, "  {name}: {}", Line(value))?;
            }
            if !outgoing.removed.is_empty() {
                writeln!(
                    f,
                    "fields of the request that it does not get: {}",
                    Line(&outgoing.removed.join(", "))
                )?;
            }
            if let Some(tls) = &outgoing.tls {
                writeln!(f, "over TLS: {}", Line(tls))?;
            }
            if !outgoing.trailers.is_empty() {
                writeln!(f, "with the trailers {}", Line(&outgoing.trailers.join(", ")))?;
            }
            if outgoing.protocol.as_deref() == Some("http2") {
                writeln!(f, "over HTTP/2")?;
            }
            if let Some(balance) = &outgoing.balance {
                writeln!(f, "servers are chosen {}", Line(balance))?;
            }
            if let Some(timeout) = &outgoing.connect_timeout {
                writeln!(f, "connection awaited for {timeout}")?;
            }
            if let Some(timeout) = &outgoing.timeout {
                writeln!(f, "answer awaited for {timeout}")?;
            }
            if let Some(silence) = &outgoing.silence {
                writeln!(f, "silence in a body or a WebSocket ends it after {silence}")?;
            }
            if outgoing.is_repeatable == Some(false) {
                writeln!(f, "never sent again after a server has received a part of it")?;
            }
            if let Some(budget) = &outgoing.retry_budget {
                writeln!(f, "sent again after a server has failed: {budget}")?;
            }
            if let Some(fields) = &outgoing.answer_fields {
                writeln!(f, "the gateway changes the fields of the answer: {}", Line(fields))?;
            }
            if let Some(coding) = &outgoing.compress {
                let types = match &outgoing.compress_types[..] {
                    [] => String::new(),
                    types => format!(" ({})", types.join(", ")),
                };
                writeln!(f, "answer compressed by {coding}, if its type{types} and length allow it")?;
            }
            if outgoing.streams.as_deref() == Some("open") {
                writeln!(f, "streams outlive the token of the caller")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for CrossOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (effect, denied) = match self.is_preflight {
            true => ("the browser then sends the request", "the browser does not send the request"),
            false => ("scripts may read the answer", "no script may read the answer"),
        };
        let effect = match self.is_allowed {
            Some(true) => effect,
            Some(false) => denied,
            None => "the upstream decides whether scripts may read the answer",
        };
        writeln!(f, "origin {}: {effect}", Line(&self.origin))?;
        for (name, value) in &self.fields {
            writeln!(f, "  {name}: {}", Line(value))?;
        }
        Ok(())
    }
}

/// Formats text from a request or a policy on one line. Control characters, such as line breaks, are escaped.
pub(crate) struct Line<'t>(pub(crate) &'t str);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
