//! Whose tokens are believed, for how long, and where they go.

use super::Subject;
use crate::config::file::SameSite;
use crate::policy::compile::Faults;
use std::time::Duration;

/// Clocks that are kept by NTP differ by less than a second; a minute is ample.
const LEEWAY_MUCH: Duration = Duration::from_secs(60);
/// A retry comes within seconds.
const GRACE_MUCH: Duration = Duration::from_secs(60);

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let file = subject.file;
    for (index, issuer) in file.issuer.iter().enumerate() {
        let is_far = |rest: &str| !["localhost", "127.", "[::1]"].iter().any(|own| rest.starts_with(own));
        if issuer.issuer.strip_prefix("http://").is_some_and(is_far) {
            faults.warn(
                "issuer_in_cleartext",
                &format!("issuer[{index}].issuer"),
                format!("\"{}\": whoever is on the way to it can answer in its name", issuer.issuer),
                "an issuer over https (RFC 8414 section 2)",
            );
        }
        if Duration::from(issuer.leeway) > LEEWAY_MUCH {
            faults.warn(
                "long_leeway",
                &format!("issuer[{index}].leeway"),
                format!("{}: tokens live on for so long after they have expired", issuer.leeway),
                "\"30s\", and clocks that are kept right",
            );
        }
    }
    if file.identity.forward_token {
        faults.warn(
            "token_forwarded",
            "identity.forward_token",
            "true: every upstream gets a token with which it can call all the others",
            "false; an upstream that has to call others gets a token of its own",
        );
    }
    let Some(authority) = &file.authority else { return };
    if Duration::from(authority.refresh_grace) > GRACE_MUCH {
        faults.warn(
            "long_grace",
            "authority.refresh_grace",
            format!(
                "{}: for so long a stolen refresh token works beside the real one unseen",
                authority.refresh_grace
            ),
            "\"10s\"",
        );
    }
    if authority.rate_limits.is_empty() {
        faults.warn(
            "login_unlimited",
            "authority.rate_limits",
            "nothing bounds how fast an address may try to log in, but the throttle of single accounts",
            "rate_limits = [\"login\"], and a [rate_limit.login] by \"client_ip\"",
        );
    }
    if authority.cookies && authority.same_site == SameSite::Lax {
        faults.warn(
            "lax_cookies",
            "authority.same_site",
            "\"lax\": a link of another site brings the session's cookies along",
            "\"strict\"; a route with login = \"page\" leads back by itself",
        );
    }
}
