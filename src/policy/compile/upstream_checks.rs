//! Compiles `[upstream.NAME.health]`: the active checks of servers.

use super::Faults;
use crate::config::file::{HealthCheck, HealthSection, UpstreamProtocol, UpstreamSection};
use crate::forward::{CheckSettings, Probe, Protocol};
use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// The minimum time between two checks of a server.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Returns the settings of an upstream's checks; `None` if it has none, or if a fault was reported.
pub(super) fn check_settings(
    name: &str,
    table: &UpstreamSection,
    faults: &mut Faults<'_>,
) -> Option<Arc<CheckSettings>> {
    let health = table.health.as_ref()?;
    if table.protocol == UpstreamProtocol::Http1 && health.check == HealthCheck::Grpc {
        let hint = "protocol = \"http2\", or check = \"http\"";
        let found = "\"grpc\", but the servers use HTTP/1.1";
        faults.fault("bad_upstream", &format!("upstream.{name}.health.check"), found, hint);
        return None;
    }
    let protocol = match table.protocol {
        UpstreamProtocol::Http1 => Protocol::Http1,
        UpstreamProtocol::Http2 => Protocol::Http2,
    };
    settings(&format!("upstream.{name}.health"), health, protocol, faults).map(Arc::new)
}

/// Compiles the percentage of servers below which all are used.
pub(super) fn panic_below(key: &str, table: &UpstreamSection, faults: &mut Faults<'_>) -> u8 {
    u8::try_from(table.panic_below).ok().filter(|percent| *percent <= 100).unwrap_or_else(|| {
        let key = format!("{key}.panic_below");
        let hint = "a percentage from 0 to 100; 0 turns it off";
        faults.fault("bad_value", &key, table.panic_below.to_string(), hint);
        0
    })
}

fn settings(
    key: &str,
    table: &HealthSection,
    protocol: Protocol,
    faults: &mut Faults<'_>,
) -> Option<CheckSettings> {
    let count = faults.fault_count;
    let (interval, timeout) = (Duration::from(table.interval), Duration::from(table.timeout));
    if interval < INTERVAL_MIN {
        let hint = format!("at least {INTERVAL_MIN:?}, such as \"5s\"");
        faults.fault("bad_value", &format!("{key}.interval"), format!("{interval:?}"), hint);
    }
    if timeout.is_zero() {
        let hint = "use a duration such as \"2s\"";
        faults.fault("bad_value", &format!("{key}.timeout"), "0: every check would fail", hint);
    }
    for (name, number) in [("unhealthy_after", table.unhealthy_after), ("healthy_after", table.healthy_after)]
    {
        if number == 0 {
            let hint = "a number of checks of at least 1";
            faults.fault("bad_value", &format!("{key}.{name}"), "0", hint);
        }
    }
    let (kind, unused): (_, &[_]) = match table.check {
        HealthCheck::Http => ("http", &[("service", &table.service)]),
        HealthCheck::Grpc => ("grpc", &[("path", &table.path)]),
        HealthCheck::Tcp => {
            ("tcp", &[("path", &table.path), ("host", &table.host), ("service", &table.service)])
        }
    };
    for (name, _) in unused.iter().filter(|(_, value)| value.is_some()) {
        let found = format!("set, but check is \"{kind}\"");
        faults.fault("bad_upstream", &format!("{key}.{name}"), found, "change check, or remove this");
    }
    let probe = match table.check {
        HealthCheck::Http => http(key, table, protocol, faults),
        HealthCheck::Grpc => grpc(key, table, faults),
        HealthCheck::Tcp => Some(Probe::Connect),
    };
    let (unhealthy_after, healthy_after) = (table.unhealthy_after, table.healthy_after);
    let settings = CheckSettings { probe: probe?, interval, timeout, unhealthy_after, healthy_after };
    (faults.fault_count == count).then_some(settings)
}

fn http(key: &str, table: &HealthSection, protocol: Protocol, faults: &mut Faults<'_>) -> Option<Probe> {
    let Some(path) = &table.path else {
        let hint = "path = \"/healthz\": the path that answers 2xx if the server works";
        faults.fault("missing_key", &format!("{key}.path"), "nothing", hint);
        return None;
    };
    if !path.starts_with('/') || path.contains('#') || path.parse::<PathAndQuery>().is_err() {
        let hint = "a path such as \"/healthz\"";
        faults.fault("bad_value", &format!("{key}.path"), format!("\"{path}\""), hint);
    }
    let host = host(key, table, faults);
    let mut statuses = Vec::new();
    for (index, text) in table.status.iter().enumerate() {
        match range(text) {
            Some(range) => statuses.push(range),
            None => {
                let hint = "a status such as \"200\", or a range such as \"200-399\"";
                faults.fault("bad_value", &format!("{key}.status[{index}]"), format!("\"{text}\""), hint);
            }
        }
    }
    if table.status.is_empty() {
        let hint = "status = [\"200-299\"]";
        faults.fault("bad_value", &format!("{key}.status"), "an empty list: every check would fail", hint);
    }
    Some(Probe::Http { protocol, path: path.as_str().into(), host, statuses: statuses.into() })
}

/// Maximum length of the name of a service, in bytes.
const SERVICE_MAX: usize = 256;

fn grpc(key: &str, table: &HealthSection, faults: &mut Faults<'_>) -> Option<Probe> {
    let service = table.service.as_deref().unwrap_or_default();
    if service.len() > SERVICE_MAX {
        let hint = "the name of a service, such as \"package.Service\"";
        faults.fault("bad_value", &format!("{key}.service"), format!("{} bytes", service.len()), hint);
    }
    Some(Probe::Grpc { service: service.into(), host: host(key, table, faults) })
}

fn host(key: &str, table: &HealthSection, faults: &mut Faults<'_>) -> Option<HeaderValue> {
    let host = table.host.as_ref()?;
    let valid = host.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
    let value = valid.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if value.is_none() {
        let hint = "a host name, with a port if needed";
        faults.fault("bad_value", &format!("{key}.host"), format!("\"{host}\""), hint);
    }
    value
}

/// Returns a range of statuses: `200`, or `200-399`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let is_plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| is_plain && (200..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_or_ranges() {
        assert_eq!(range("200"), Some(200..=200));
        assert_eq!(range("200-399"), Some(200..=399));
        for text in ["", "2xx", "99", "100", "600", "0200", "+200", "300-200", "200-", "-200", "200-299-300"]
        {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
