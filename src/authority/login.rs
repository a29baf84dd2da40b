//! Exchanges a user name and a password for a session.
//!
//! A client without the password must not find out whether an account exists, whether it is disabled, or how its
//! password is hashed. The response and its timing are the same in all cases.

use super::counters::{LoginOutcome, RevocationCause};
use super::grant::{Grant, RefreshToken, hash_of, random_text};
use super::page;
use super::password::{PasswordCheck, password_hash};
use super::request::EndpointRequest;
use super::runtime::{Authority, millis, millis_of};
use super::session::end_one;
use super::throttle::admission::{Admitted, Attempt, Fleet, Refused};
use super::username::UserName;
use crate::authenticate::{Thumbprint, digest_of};
use crate::denial::{BodyFault, Denial};
use crate::journal::Level;
use crate::store::{Account, Session, SessionStart};
use bytes::Bytes;
use http::Response;
use zeroize::Zeroizing;

/// The maximum length of a user name or password, in bytes.
const PASSWORD_MAX: usize = 1024;

pub(super) async fn login(
    authority: &Authority,
    request: &EndpointRequest,
) -> Result<Response<Bytes>, Denial> {
    let outcome = attempt(authority, request).await;
    authority.counters.logins.add(match &outcome {
        Ok(_) => LoginOutcome::Ok,
        Err(Denial::BadCredentials) => LoginOutcome::BadCredentials,
        Err(Denial::AccountDisabled) => LoginOutcome::Disabled,
        Err(Denial::TooManyAttempts { .. }) => LoginOutcome::Throttled,
        Err(Denial::Overloaded | Denial::StoreUnavailable | Denial::LoginUnavailable) => LoginOutcome::Busy,
        Err(_) => LoginOutcome::Invalid,
    });
    outcome
}

async fn attempt(authority: &Authority, request: &EndpointRequest) -> Result<Response<Bytes>, Denial> {
    // `Authority::answer` has already refused requests from other sites.
    let as_cookies = as_cookies(request)?;
    if as_cookies {
        // A browser sends cookies without a proof, so such a session could not use its tokens.
        if request.proof.is_some() {
            return Err(Denial::ProofWithCookies);
        }
        page::check_login_origin(request)?;
    }
    let name = request.fields.required("username")?;
    let password = request.fields.required("password")?;
    if name.len() > PASSWORD_MAX || password.len() > PASSWORD_MAX {
        return Err(Denial::InvalidBody(BodyFault::Value));
    }
    let account = prove(authority, request, name, password).await?;
    let key = authority.proven_key(request).await?;
    begin(authority, request, &account, as_cookies, key).await
}

/// Whether to return the tokens in cookies. They are returned in the body if the authority sets no cookies, if the
/// client sends `deliver=body`, or if the form does not come from a browser.
fn as_cookies(request: &EndpointRequest) -> Result<bool, Denial> {
    match request.fields.optional("deliver")? {
        None => Ok(request.settings.cookies.is_some() && !page::is_form_without_browser(request)?),
        Some("body") => Ok(false),
        Some(_) => Err(Denial::InvalidBody(BodyFault::Delivery)),
    }
}

/// Checks the password of the account `name` and returns the account.
async fn prove(
    authority: &Authority,
    request: &EndpointRequest,
    name: &str,
    password: &str,
) -> Result<Account, Denial> {
    let store = &authority.store;
    let unavailable = |error| authority.unavailable(&error);
    let address = request.address.to_string();
    // Look up an invalid name as the empty name, which no account has. The response time then reveals nothing.
    let name = UserName::parse(name).map_or_else(|_| String::new(), |name| name.as_str().to_owned());
    let account = store.account_by_name(&name).await.map_err(unavailable)?;
    let id = account.as_ref().map_or(name.as_str(), |account| account.id.as_str());
    let known = store.known_address(id, &address).await.map_err(unavailable)?;
    let schemes = authority.schemes().await.map_err(unavailable)?;
    let attempt = Attempt { address: request.address, account: &name, known };
    let admitted = admit(authority, request, attempt).await.map_err(|refused| match refused {
        Refused::Wait(wait) => {
            log_failed(authority, request, account.as_ref(), "too_many_attempts");
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Denial::TooManyAttempts { wait: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
        }
        Refused::Unavailable => Denial::LoginUnavailable,
    })?;
    let stored = account.as_ref().map(|account| account.password.clone()).filter(|hash| !hash.is_empty());
    let password =
        super::username::prepare_password(password).unwrap_or_else(|_| Zeroizing::new(password.to_owned()));
    let Ok(verdict) = authority.hashers.verify(password, stored, schemes).await else {
        // The password was not checked, so the attempt does not count.
        admitted.withdrawn();
        return Err(Denial::Overloaded);
    };
    let (account, upgraded) = match (verdict, account) {
        (PasswordCheck::Correct { upgraded }, Some(account)) => (account, upgraded),
        (PasswordCheck::Wrong | PasswordCheck::Correct { .. }, guessed) => {
            log_failed(authority, request, guessed.as_ref(), "bad_credentials");
            return Err(Denial::BadCredentials);
        }
    };
    admitted.succeeded();
    if account.disabled {
        log_failed(authority, request, Some(&account), "account_disabled");
        return Err(Denial::AccountDisabled);
    }
    if let Some(new) = upgraded {
        // A concurrent login may have upgraded the hash too. Both hashes are equally valid.
        let new = password_hash(new);
        store.upgrade_password(&account.id, &account.password, &new).await.map_err(unavailable)?;
        authority.forget_schemes();
    }
    Ok(account)
}

/// Asks the throttle of this gateway, and that of the fleet if there is a shared state.
async fn admit<'a>(
    authority: &'a Authority,
    request: &EndpointRequest,
    attempt: Attempt<'a>,
) -> Result<Admitted<'a>, Refused> {
    let fleet = authority.link.load_full().map(|link| Fleet {
        link,
        issuer: &request.settings.issuer,
        outcomes: &authority.counters.shared_logins,
    });
    authority.throttle.admit(attempt, fleet).await
}

/// Logs a failed login to an existing account. An unknown name is not logged, because it may be a password in the wrong
/// field.
fn log_failed(
    authority: &Authority,
    request: &EndpointRequest,
    account: Option<&Account>,
    why: &'static str,
) {
    let Some(account) = account else { return };
    let client = request.address.to_string();
    authority.journal.event(
        Level::Warn,
        "a login failed",
        &[
            ("account", &account.name),
            ("subject", &account.id),
            ("client", &client),
            ("request_id", &request.request_id),
            ("why", why),
        ],
    );
}

/// Ends the browser's old session, whose cookies the new session overwrites. Unused old sessions would eventually push
/// out the sessions of other devices.
async fn replace(authority: &Authority, request: &EndpointRequest) {
    let Ok(Some((token, true))) = request.refresh_token() else { return };
    let Ok(token) = hash_of(token) else { return };
    let ended = match authority.store.session_of_token(&token).await {
        // Do not end a session that is bound to a key: this request has no proof.
        Ok(Some(session)) if session.key.is_none() => {
            end_one(authority, request, Some(&session.account), &session.id, RevocationCause::Session)
                .await
                .map(drop)
        }
        Ok(Some(_) | None) => Ok(()),
        Err(error) => Err(authority.unavailable(&error)),
    };
    // An error is ignored: the old session will expire, and a store error has been logged.
    drop(ended);
}

async fn begin(
    authority: &Authority,
    request: &EndpointRequest,
    account: &Account,
    as_cookies: bool,
    key: Option<Thumbprint>,
) -> Result<Response<Bytes>, Denial> {
    let settings = &request.settings;
    let now = millis(request.now);
    let csrf = if as_cookies { Some(random_text()?) } else { None };
    let expires = now.saturating_add(millis_of(settings.session_expires));
    let session = Session {
        id: random_text()?,
        account: account.id.clone(),
        created: now,
        used: now,
        expires,
        authenticated: now,
        address: request.address.to_string(),
        agent: request.agent(),
        csrf: csrf.as_deref().map(|csrf| digest_of(csrf.as_bytes())),
        key,
        ended: None,
    };
    let token = RefreshToken::random(key.is_some())?;
    let token_expires = now.saturating_add(millis_of(settings.refresh_expires)).min(expires);
    authority.record_life(settings).await?;
    let begun = authority
        .store
        .begin_session(&session, account.generation, (&token.hash(), token_expires), settings.sessions, now)
        .await
        .map_err(|error| authority.unavailable(&error))?;
    match begun {
        SessionStart::Started(marks) => {
            authority.mark(settings, &marks, request.now, RevocationCause::Session)
        }
        SessionStart::AccountGone => return Err(Denial::BadCredentials),
        SessionStart::AccountDisabled => return Err(Denial::AccountDisabled),
        // The account changed after the password check. Its password may have changed too, so the client must try
        // again.
        SessionStart::AccountChanged => return Err(Denial::Overloaded),
    }
    if as_cookies {
        replace(authority, request).await;
    }
    authority.journal.event(
        Level::Info,
        "logged in",
        &[("subject", &account.id), ("client", &session.address), ("session", &session.id)],
    );
    let grant = Grant {
        settings,
        account,
        session: &session,
        fresh: true,
        refresh: &token,
        refresh_expires: token_expires,
        csrf: csrf.as_deref(),
        now: request.now,
    };
    grant.response(&authority.counters, &authority.journal)
}
