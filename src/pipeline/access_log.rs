//! Writes the access line of a request.
//!
//! Input from a client cannot break out of its field (see `journal::line`). `Line` has no field for tokens, header
//! fields or queries.

use crate::denial::{Denial, Fault};
use crate::journal::{Level, LineWriter, Style};
use crate::peer::Scheme;
use std::io::Write;
use std::net::IpAddr;

/// The facts about one request that are logged. The byte slices hold input from the client. All other values were
/// created or verified by the gateway.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// The time at which the head was read, in seconds since 1970.
    pub(super) unix: u64,
    /// The nanoseconds within the second.
    pub(super) subsec_nanos: u32,
    /// The severity of the line, as returned by [`level`].
    pub(super) level: Level,
    pub(super) request_id: &'a [u8],
    /// The trace id, if it differs from the request id.
    pub(super) trace_id: Option<&'a [u8]>,
    pub(super) client: IpAddr,
    pub(super) scheme: Scheme,
    /// The protocol, such as `HTTP/1.1` or `HTTP/2`.
    pub(super) version: &'a str,
    pub(super) method: &'a [u8],
    /// The requested host, as sent.
    pub(super) host: &'a [u8],
    /// The path as sent, without the query: queries often contain tokens and personal data.
    pub(super) path: &'a [u8],
    /// The name of the route, if one was found.
    pub(super) route: Option<&'a str>,
    /// The status of the response.
    pub(super) status: u16,
    /// The code of the denial, if the request was refused.
    pub(super) code: Option<&'static str>,
    /// The code of a denial that was not enforced because the route is in shadow mode.
    pub(super) shadow: Option<&'static str>,
    /// The detailed reason for a denial or a failure, for operators only.
    pub(super) detail: Option<&'a str>,
    /// The subject of the verified caller.
    pub(super) subject: Option<&'a str>,
    /// The issuer of the caller's token.
    pub(super) issuer: Option<&'a str>,
    /// The server to which the request was forwarded.
    pub(super) upstream: Option<&'a str>,
    /// The number of body bytes received from the client.
    pub(super) bytes_in: u64,
    /// The number of body bytes sent to the client.
    pub(super) bytes_out: u64,
    /// The reason why a WebSocket or a long answer ended.
    pub(super) ended: Option<&'static str>,
    /// The time from reading the head to the last byte of the response, in microseconds.
    pub(super) micros: u64,
    /// The time from reading the head to the head of the upstream's response, in microseconds.
    pub(super) upstream_micros: Option<u64>,
    /// Whether the whole response was passed to the client's connection.
    pub(super) complete: bool,
    /// The proxy that sent a forward-auth request for this request. `None` for an ordinary request.
    pub(super) verdict_for: Option<IpAddr>,
}

/// Returns the severity of a request's line. A client's error is normal for a gateway. A failure of the gateway or an
/// upstream, such as a truncated response, is a warning.
pub(super) const fn level(denial: Option<&Denial>, broken: bool) -> Level {
    match denial {
        None if broken => Level::Warn,
        None => Level::Info,
        Some(denial) => match denial.fault() {
            Fault::Client | Fault::Operator => Level::Info,
            Fault::Gateway | Fault::Upstream => Level::Warn,
        },
    }
}

impl Line<'_> {
    /// Appends the line and a line end. Each value is cut at 1 KiB before it is escaped.
    pub(super) fn write(&self, style: Style, out: &mut Vec<u8>) {
        let mut line = LineWriter::begin(style, out, self.unix, self.subsec_nanos, self.level);
        match style {
            Style::Human => self.write_human(&mut line),
            Style::Json => self.write_json(&mut line),
        }
        line.end();
    }

    /// Writes `12:00:00.000Z INFO  200 GET https://host/path 1.234ms client=192.0.2.1 route=orders …`.
    fn write_human(&self, line: &mut LineWriter<'_>) {
        line.bare(itoa::Buffer::new().format(self.status).as_bytes());
        line.bare(self.method);
        line.bare(self.scheme.as_str().as_bytes());
        line.bare_part(b"://");
        line.bare_part(self.host);
        line.bare_part(self.path);
        self.write_milliseconds(line);
        line.text("client", Address::of(self.client).as_bytes());
        self.write_facts(line);
        if !self.complete {
            line.flag("complete", false);
        }
        if let Some(trace_id) = self.trace_id {
            line.text("trace_id", trace_id);
        }
        line.text("id", self.request_id);
    }

    fn write_json(&self, line: &mut LineWriter<'_>) {
        line.text("request_id", self.request_id);
        if let Some(trace_id) = self.trace_id {
            line.text("trace_id", trace_id);
        }
        line.text("client", Address::of(self.client).as_bytes());
        line.text("scheme", self.scheme.as_str().as_bytes());
        line.text("version", self.version.as_bytes());
        line.text("method", self.method);
        line.text("host", self.host);
        line.text("path", self.path);
        line.number("status", u64::from(self.status));
        self.write_facts(line);
        line.number("bytes_in", self.bytes_in);
        line.number("bytes_out", self.bytes_out);
        line.number("duration_us", self.micros);
        if let Some(micros) = self.upstream_micros {
            line.number("upstream_us", micros);
        }
        line.flag("complete", self.complete);
    }

    fn write_facts(&self, line: &mut LineWriter<'_>) {
        line.maybe("route", self.route);
        line.maybe("reason", self.code);
        line.maybe("shadow", self.shadow);
        line.maybe("detail", self.detail);
        line.maybe("subject", self.subject);
        line.maybe("issuer", self.issuer);
        line.maybe("upstream", self.upstream);
        line.maybe("ended", self.ended);
        if let Some(proxy) = self.verdict_for {
            line.text("verdict_for", Address::of(proxy).as_bytes());
        }
    }

    /// Writes the duration as `1.234ms`.
    fn write_milliseconds(&self, line: &mut LineWriter<'_>) {
        line.bare(itoa::Buffer::new().format(self.micros / 1000).as_bytes());
        let rest = self.micros % 1000;
        // Each digit is below 10, so the cast loses nothing.
        let digits = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
        line.bare_part(b".");
        line.bare_part(&digits);
        line.bare_part(b"ms");
    }
}

/// An address as text, in a buffer on the stack. The longest text has 45 bytes: an IPv4-mapped IPv6 address (RFC 4291
/// section 2.2).
struct Address {
    text: [u8; 48],
    length: usize,
}

impl Address {
    fn of(address: IpAddr) -> Self {
        let mut text = [0; 48];
        let mut rest = &mut text[..];
        // A write fails only if the buffer is full. No address fills the buffer.
        let _ = match address {
            IpAddr::V4(v4) => {
                let mut result = Ok(());
                for (place, octet) in v4.octets().into_iter().enumerate() {
                    let dot: &[u8] = if place == 0 { b"" } else { b"." };
                    result = result.and_then(|()| rest.write_all(dot));
                    let mut digits = itoa::Buffer::new();
                    result = result.and_then(|()| rest.write_all(digits.format(octet).as_bytes()));
                }
                result
            }
            IpAddr::V6(v6) => write!(rest, "{v6}"),
        };
        let length = 48 - rest.len();
        Self { text, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::line::{CUT, VALUE_MAX};
    use proptest::prelude::*;

    fn line() -> Line<'static> {
        Line {
            unix: 1_767_225_600,
            subsec_nanos: 5_000_000,
            level: Level::Info,
            request_id: b"01J",
            trace_id: None,
            client: "192.0.2.1".parse().unwrap(),
            scheme: Scheme::Https,
            version: "HTTP/2",
            method: b"GET",
            host: b"api.example.com",
            path: b"/orders/7",
            route: Some("orders"),
            status: 403,
            code: Some("insufficient_role"),
            shadow: None,
            detail: Some("asks for admin"),
            subject: Some("u1"),
            issuer: Some("https://id.example.com/"),
            upstream: None,
            bytes_in: 3,
            bytes_out: 180,
            ended: None,
            micros: 1_034,
            upstream_micros: None,
            complete: true,
            verdict_for: None,
        }
    }

    fn written(line: &Line<'_>, style: Style) -> String {
        let mut out = Vec::new();
        line.write(style, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_json_line_has_every_fact_and_leaves_out_what_is_not_there() {
        assert_eq!(
            written(&line(), Style::Json),
            "{\"time\":\"2026-01-01T00:00:00.005Z\",\"level\":\"info\",\"request_id\":\"01J\",\
             \"client\":\"192.0.2.1\",\"scheme\":\"https\",\"version\":\"HTTP/2\",\"method\":\"GET\",\
             \"host\":\"api.example.com\",\"path\":\"/orders/7\",\"status\":403,\"route\":\"orders\",\
             \"reason\":\"insufficient_role\",\"detail\":\"asks for admin\",\"subject\":\"u1\",\
             \"issuer\":\"https://id.example.com/\",\"bytes_in\":3,\"bytes_out\":180,\
             \"duration_us\":1034,\"complete\":true}\n"
        );
    }

    #[test]
    fn a_human_line_reads_from_the_status_to_the_id() {
        let cut_short =
            Line { complete: false, code: None, detail: None, upstream: Some("10.0.0.1:80"), ..line() };
        assert_eq!(
            written(&cut_short, Style::Human),
            "2026-01-01T00:00:00.005Z INFO  403 GET https://api.example.com/orders/7 1.034ms \
             client=192.0.2.1 route=orders subject=u1 issuer=https://id.example.com/ \
             upstream=10.0.0.1:80 complete=false id=01J\n"
        );
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "192.0.2.10",
            "::",
            "2001:db8::1",
            "2001:db8:1111:2222:3333:4444:5555:6666",
            "::ffff:255.255.255.255",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Address::of(address).as_bytes(), address.to_string().as_bytes());
        }
    }

    #[test]
    fn only_faults_that_are_not_the_clients_are_warnings() {
        assert_eq!(level(None, false), Level::Info);
        assert_eq!(level(None, true), Level::Warn);
        assert_eq!(level(Some(&Denial::BadSignature), false), Level::Info);
        assert_eq!(level(Some(&Denial::Overloaded), false), Level::Warn);
        assert_eq!(level(Some(&Denial::UpstreamFailed), false), Level::Warn);
    }

    /// Generates bytes with which a client might forge a log line: any bytes, and characters with a meaning in a log
    /// format.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..1200),
            "[\"\\\\\n\r\t =a{}:,\u{1b}\u{9b}\u{202e}\u{2028}é🙂]{0,40}".prop_map(String::into_bytes),
        ]
    }

    fn kept(value: &[u8]) -> (String, bool) {
        (String::from_utf8_lossy(value).into_owned(), value.len() > VALUE_MAX)
    }

    proptest! {
        /// Any client input gives one line of valid JSON with the same fields. Each value is read back unchanged.
        #[test]
        fn hostile_input_never_forges_a_line_or_a_field(
            id in hostile(), method in hostile(), host in hostile(), path in hostile(), subject in hostile(),
        ) {
            let subject = String::from_utf8_lossy(&subject).into_owned();
            let line = Line {
                request_id: &id, method: &method, host: &host, path: &path, subject: Some(&subject), ..line()
            };

            let json = written(&line, Style::Json);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(parsed.as_object().unwrap().len(), 19);
            prop_assert_eq!(&parsed["status"], 403);
            let fields: [(&str, &[u8]); 5] = [("request_id", &id), ("method", &method), ("host", &host),
                ("path", &path), ("subject", subject.as_bytes())];
            for (key, sent) in fields {
                let logged = parsed[key].as_str().unwrap();
                let (sent, cut) = kept(sent);
                if cut {
                    prop_assert!(sent.starts_with(logged.strip_suffix(CUT).unwrap()));
                } else {
                    prop_assert_eq!(logged, sent);
                }
            }

            let human = written(&line, Style::Human);
            prop_assert_eq!(human.matches('\n').count(), 1);
            prop_assert!(!human.trim_end_matches('\n').chars().any(char::is_control));
            // All words outside quotes are keys written by the gateway, and each key occurs once.
            let mut quoted = false;
            let mut escape = false;
            let outside: String = human.chars().map(|c| {
                let hidden = quoted;
                if !escape && c == '"' { quoted = !quoted; }
                escape = quoted && !escape && c == '\\';
                if hidden || quoted { '_' } else { c }
            }).collect();
            for key in [" client=", " route=", " reason=", " subject=", " id="] {
                prop_assert_eq!(outside.matches(key).count(), 1, "{} in {}", key, &human);
            }
        }
    }
}
