//! Compiles `identity` of a `[[route]]`: the part of the caller's identity that the upstream receives.

use super::Faults;
use crate::authenticate::IdentityHeaders;
use crate::config::file::{Access, File, RouteSection};
use crate::forward::IdentityChoice;
use http::HeaderName;

/// Returns the choice of a route. Returns `None` if the upstream receives the whole identity. Reports faults.
pub(super) fn choice(
    key: &str,
    table: &RouteSection,
    file: &File,
    identity: &IdentityHeaders,
    faults: &mut Faults<'_>,
) -> Option<IdentityChoice> {
    let list = table.identity.as_ref()?;
    let at = format!("{key}.identity");
    if table.access == Access::Public {
        let hint = "remove it, or set access = \"authenticated\" or \"optional\"";
        faults.fault("impossible_rule", &at, "set on a public route, which has no caller", hint);
    }
    if table.forward_token.unwrap_or(file.identity.forward_token) {
        let hint = "remove it, or set forward_token = false on the route";
        faults.fault("impossible_rule", &at, "set, but forward_token sends the whole token", hint);
    }
    let mut choice = IdentityChoice::default();
    let [subject, roles, scopes, issuer] = identity.facts();
    for (index, name) in list.iter().enumerate() {
        let header = match name.as_str() {
            "subject" => {
                choice.subject = true;
                subject.cloned()
            }
            "roles" => {
                choice.roles = true;
                roles.cloned()
            }
            "scopes" => {
                choice.scopes = true;
                scopes.cloned()
            }
            "issuer" => {
                choice.issuer = true;
                issuer.cloned()
            }
            name => {
                let header = name.parse::<HeaderName>().ok();
                let known = identity.claims().iter().find(|(known, _)| Some(known) == header.as_ref());
                match known {
                    Some((_, claim)) => choice.claims.push(*claim),
                    None => {
                        let facts = ["subject", "roles", "scopes", "issuer"].into_iter();
                        let known = facts.chain(file.identity.claims.keys().map(String::as_str));
                        faults.undefined(&format!("{at}[{index}]"), "part of the identity", name, known);
                    }
                }
                header
            }
        };
        choice.headers.extend(header);
    }
    Some(choice)
}
