//! The ids of all findings. `docs/findings.md` explains each finding. Waivers refer to findings by id.

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The policy is not served. A fault cannot be waived.
    Fault,
    /// The policy can be served, but it may admit callers by mistake or fail in use. Weaknesses are logged at start.
    Weakness,
    /// A possible improvement. Reported only by `check`.
    Advice,
}

/// The ids of all findings and their severities, in alphabetical order.
pub const ALL: &[(&str, Kind)] = &[
    ("acme_domain", Kind::Fault),
    ("acme_listener", Kind::Fault),
    ("address_without_ca", Kind::Weakness),
    ("admin_exposed", Kind::Weakness),
    ("any_audience", Kind::Weakness),
    ("any_tenant", Kind::Weakness),
    ("bad_api_keys", Kind::Fault),
    ("bad_certificate", Kind::Fault),
    ("bad_claim_path", Kind::Fault),
    ("bad_file", Kind::Fault),
    ("bad_header", Kind::Fault),
    ("bad_host", Kind::Fault),
    ("bad_key", Kind::Fault),
    ("bad_method", Kind::Fault),
    ("bad_name", Kind::Fault),
    ("bad_path", Kind::Fault),
    ("bad_prefix", Kind::Fault),
    ("bad_resource", Kind::Fault),
    ("bad_server", Kind::Fault),
    ("bad_toml", Kind::Fault),
    ("bad_type", Kind::Fault),
    ("bad_upstream", Kind::Fault),
    ("bad_value", Kind::Fault),
    ("cannot_read", Kind::Fault),
    ("cannot_serve", Kind::Fault),
    ("certificate_and_acme", Kind::Fault),
    ("certificate_expired", Kind::Weakness),
    ("certificate_host", Kind::Fault),
    ("certificate_name", Kind::Weakness),
    ("certificate_not_yet_valid", Kind::Weakness),
    ("cleartext_exposed", Kind::Weakness),
    ("colon_parameter", Kind::Weakness),
    ("compressed_secret", Kind::Fault),
    ("compressed_with_credentials", Kind::Weakness),
    ("crl_expired", Kind::Weakness),
    ("duplicate_key", Kind::Fault),
    ("empty_list", Kind::Weakness),
    ("evadable_limit", Kind::Weakness),
    ("excluded_role_omitted", Kind::Weakness),
    ("failed_test", Kind::Fault),
    ("guessable_secret", Kind::Weakness),
    ("half_a_pair", Kind::Fault),
    ("hsts_off", Kind::Weakness),
    ("impossible_rule", Kind::Fault),
    ("impossible_test", Kind::Fault),
    ("introspection_in_cleartext", Kind::Weakness),
    ("issuer_in_cleartext", Kind::Weakness),
    ("issuer_not_forwarded", Kind::Weakness),
    ("joined_names", Kind::Weakness),
    ("keys_in_cleartext", Kind::Weakness),
    ("late_revocation", Kind::Weakness),
    ("lax_cookies", Kind::Weakness),
    ("login_unlimited", Kind::Weakness),
    ("long_access_token", Kind::Weakness),
    ("long_grace", Kind::Weakness),
    ("long_key", Kind::Fault),
    ("long_leeway", Kind::Weakness),
    ("missing_key", Kind::Fault),
    ("mixed_keys", Kind::Fault),
    ("more_findings", Kind::Fault),
    ("nearly_the_same", Kind::Weakness),
    ("no_audience", Kind::Fault),
    ("no_authorities", Kind::Fault),
    ("no_cookies", Kind::Fault),
    ("no_key", Kind::Fault),
    ("no_routes", Kind::Fault),
    ("no_secret", Kind::Fault),
    ("no_servers", Kind::Fault),
    ("no_signing_key", Kind::Fault),
    ("no_test", Kind::Advice),
    ("nobody_to_trust", Kind::Fault),
    ("nonces_not_shared", Kind::Weakness),
    ("not_utf8", Kind::Fault),
    ("nothing_served", Kind::Fault),
    ("nothing_to_redirect_to", Kind::Fault),
    ("one_key_source", Kind::Fault),
    ("only_excludes", Kind::Weakness),
    ("open_by_another_header", Kind::Weakness),
    ("open_by_another_host", Kind::Weakness),
    ("open_by_default", Kind::Weakness),
    ("open_by_rewriting", Kind::Weakness),
    ("open_streams", Kind::Weakness),
    ("optional_with_rule", Kind::Advice),
    ("origin_in_cleartext", Kind::Weakness),
    ("public_below_guarded", Kind::Weakness),
    ("redirect_port", Kind::Advice),
    ("resource_audience", Kind::Weakness),
    ("restart_needed", Kind::Fault),
    ("same_address", Kind::Fault),
    ("same_header", Kind::Fault),
    ("same_host", Kind::Fault),
    ("same_issuer", Kind::Fault),
    ("same_name", Kind::Fault),
    ("same_prefix", Kind::Fault),
    ("same_resource", Kind::Fault),
    ("same_route", Kind::Fault),
    ("same_secret", Kind::Weakness),
    ("secret_in_plain_text", Kind::Weakness),
    ("secret_readable", Kind::Weakness),
    ("secret_writable", Kind::Fault),
    ("self_signed", Kind::Weakness),
    ("shadow_mode", Kind::Weakness),
    ("shadowed_route", Kind::Weakness),
    ("shared_in_cleartext", Kind::Weakness),
    ("shared_roles", Kind::Weakness),
    ("shared_without_password", Kind::Weakness),
    ("skipped_key", Kind::Weakness),
    ("slow_signature", Kind::Advice),
    ("socket_replaceable", Kind::Weakness),
    ("spelling_case", Kind::Weakness),
    ("spelling_encoding", Kind::Weakness),
    ("spelling_host", Kind::Weakness),
    ("spelling_method", Kind::Weakness),
    ("spelling_parameter", Kind::Weakness),
    ("spelling_slash", Kind::Weakness),
    ("state_not_writable", Kind::Weakness),
    ("tls", Kind::Fault),
    ("token_forwarded", Kind::Weakness),
    ("token_in_query", Kind::Weakness),
    ("too_deep", Kind::Fault),
    ("too_large", Kind::Fault),
    ("too_many", Kind::Fault),
    ("trusts_everybody", Kind::Weakness),
    ("unknown_algorithm", Kind::Fault),
    ("unknown_key", Kind::Fault),
    ("unknown_method", Kind::Weakness),
    ("unknown_name", Kind::Fault),
    ("unreachable_route", Kind::Weakness),
    ("unused", Kind::Advice),
    ("unused_waiver", Kind::Advice),
    ("upstream_in_cleartext", Kind::Weakness),
    ("upstream_is_gateway", Kind::Weakness),
    ("useless_key", Kind::Fault),
    ("weak_secret", Kind::Fault),
    ("white_space", Kind::Weakness),
    ("wide_cors", Kind::Weakness),
];

/// The page that explains all findings.
const DOCS: &str = include_str!("../../docs/findings.md");

/// Returns the documentation of a finding without its heading. Returns `None` for an unknown id.
pub fn paragraph(id: &str) -> Option<&'static str> {
    kind(id)?;
    section_of(DOCS, id)
}

/// Returns the section of a page under the heading with this id or code, without the heading.
pub fn section_of(page: &'static str, id: &str) -> Option<&'static str> {
    let (_, section) = page.split_once(&format!("\n### `{id}`\n"))?;
    let end =
        section.find("\n## ").unwrap_or(section.len()).min(section.find("\n### ").unwrap_or(section.len()));
    Some(section[..end].trim())
}

/// Returns the severity of a finding. Returns `None` for an unknown id.
pub fn kind(id: &str) -> Option<Kind> {
    ALL.binary_search_by_key(&id, |(known, _)| known).ok().map(|position| ALL[position].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_its_paragraph_under_its_kind_and_every_paragraph_its_finding() {
        for (title, kind) in
            [("Faults", Kind::Fault), ("Weaknesses", Kind::Weakness), ("Advice", Kind::Advice)]
        {
            let (_, section) = DOCS.split_once(&format!("\n## {title}\n")).expect(title);
            let section = section.split("\n## ").next().unwrap();
            let documented: Vec<_> =
                section.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
            let ids: Vec<_> = ALL.iter().filter(|(_, of)| *of == kind).map(|(id, _)| *id).collect();
            assert_eq!(documented, ids, "{title}");
        }
    }

    #[test]
    fn a_paragraph_is_that_of_its_finding_and_ends_where_the_next_begins() {
        for (id, _) in ALL {
            let text = paragraph(id).unwrap_or_else(|| panic!("{id}"));
            assert!(text.contains("*Do:*") && !text.contains("\n#"), "{id}: {text}");
            assert_eq!(text.matches("*Do:*").count(), 1, "{id}: {text}");
        }
        assert_eq!(paragraph("no_such_finding"), None);
    }

    #[test]
    fn every_paragraph_says_what_to_do() {
        for section in DOCS.split("\n### ").skip(1) {
            assert!(section.contains("*Do:*"), "{section}");
        }
    }

    /// Returns the source code of all other modules.
    fn sources() -> String {
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut all = String::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("policy/findings.rs") {
                    all += &std::fs::read_to_string(path).unwrap();
                }
            }
        }
        all
    }

    #[test]
    fn every_finding_that_is_made_is_listed_and_every_one_that_is_listed_is_made() {
        let source = sources();
        for (id, _) in ALL {
            assert!(source.contains(&format!("\"{id}\"")), "nothing makes {id}");
        }
        for (call, is_fault) in [("faults.fault(", true), ("faults.warn(", false)] {
            let ids = source.split(call).skip(1).filter_map(|rest| {
                let (id, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
                Some(id)
            });
            let mut count = 0;
            for id in ids {
                count += 1;
                let listed = kind(id).unwrap_or_else(|| panic!("{id} is not listed"));
                assert_eq!(listed == Kind::Fault, is_fault, "{id}");
            }
            assert!(count > 20, "{call}: {count}");
        }
    }

    #[test]
    fn the_ids_are_in_order_and_each_is_there_once() {
        assert!(ALL.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(kind("no_test"), Some(Kind::Advice));
        assert_eq!(kind("no_tests"), None);
    }
}
