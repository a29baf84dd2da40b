//! The account at an ACME server (RFC 8555 section 7.3). It is created at the first order and kept in the state folder.

use super::transport::Transport;
use super::{Failure, Files, Settings};
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};

/// The account as in its file.
#[derive(Deserialize, Serialize)]
struct Stored {
    email: Option<String>,
    credentials: AccountCredentials,
}

/// An account, and whether it was created now.
pub(super) struct Opened {
    pub(super) account: Account,
    pub(super) is_new: bool,
}

/// Opens the kept account. Returns `None` if no account is kept.
///
/// # Errors
/// Returns a failure if the directory cannot be fetched.
pub(super) async fn kept(
    settings: &Settings,
    files: &Files,
    transport: &Transport,
) -> Result<Option<Account>, Failure> {
    let path = files.account(settings);
    let Some(stored) = files.read::<Stored>(&path) else {
        if path.exists() {
            // A new account would hide the damage, and lose the rate limits and the bindings of the old one.
            let hint = "the account cannot be read; restore the file, or remove it to create a new account";
            return Err(Failure::of("file", format!("{}: {hint}", path.display())));
        }
        return Ok(None);
    };
    let (known, email) = (stored.email.clone(), settings.email.as_deref().map(str::to_owned));
    let builder = Account::builder_with_http(Box::new(transport.clone()));
    // The library's credentials cannot be copied, so they are read again for the file.
    let account = builder.from_credentials(stored.credentials).await?;
    if known != email {
        let contact = contact(settings);
        account.update_contacts(&contact.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        if let Some(stored) = files.read::<Stored>(&path) {
            files.write(&path, &Stored { email, ..stored })?;
        }
    }
    Ok(Some(account))
}

/// Opens the kept account, or creates one.
///
/// # Errors
/// Returns a failure if the server refuses the account, or if its file cannot be written.
pub(super) async fn open(
    settings: &Settings,
    files: &Files,
    transport: &Transport,
) -> Result<Opened, Failure> {
    match kept(settings, files, transport).await {
        Ok(Some(account)) => Ok(Opened { account, is_new: false }),
        Ok(None) => create(settings, files, transport).await,
        // The server of a private authority may have been set up anew.
        Err(failure) if failure.is("accountDoesNotExist") => create(settings, files, transport).await,
        Err(failure) => Err(failure),
    }
}

/// Creates an account with a new key. It replaces the kept account.
///
/// # Errors
/// Returns a failure if the server refuses the account, or if its file cannot be written.
pub(super) async fn create(
    settings: &Settings,
    files: &Files,
    transport: &Transport,
) -> Result<Opened, Failure> {
    let contact = contact(settings);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: settings.agrees_to_terms,
        only_return_existing: false,
    };
    let external = settings
        .external_account
        .as_ref()
        .map(|external| ExternalAccountKey::new(external.id.to_string(), &external.key));
    let builder = Account::builder_with_http(Box::new(transport.clone()));
    let (account, credentials) =
        builder.create(&new, settings.directory.to_string(), external.as_ref()).await?;
    let email = settings.email.as_deref().map(str::to_owned);
    files.write(&files.account(settings), &Stored { email, credentials })?;
    Ok(Opened { account, is_new: true })
}

fn contact(settings: &Settings) -> Option<String> {
    settings.email.as_ref().map(|email| format!("mailto:{email}"))
}
