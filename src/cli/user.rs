//! `portcullis user`: manages the local authority's accounts. Running gateways read the same store, so a change takes
//! effect within a second.
//!
//! A password is read from a prompt or from standard input. It is never an argument, because other processes can read
//! arguments.

mod import;
mod listing;
mod password;
mod row;

use super::{BasicFormat, Failure, REFUSED, exit_code, load, print_error, print_line};
use crate::authority::{IssuerSettings, UserName, hash_password};
use crate::clock::Now;
use crate::keyring::MissingKey;
use crate::store::{Account, AccountChange, Added, NewAccount, PasswordHash, Store, StoreError};
use clap::Subcommand;
use serde_json::{Map, Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add an account, and ask for its password on the terminal.
    Add {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
        /// The `sub` of the account's tokens, if it is not the name. It is never reused for another account.
        #[arg(long)]
        id: Option<String>,
        /// A role; may be repeated, the most important one first.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// A scope; may be repeated.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// An attribute, which the policy may copy into a claim; may be repeated.
        #[arg(long = "attribute", value_name = "KEY=VALUE")]
        attributes: Vec<String>,
        /// Read the password from standard input. A final line break is removed.
        #[arg(long)]
        password_stdin: bool,
    },
    /// List the accounts by name.
    List,
    /// Replace the roles of an account.
    SetRoles {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
        /// The new roles, the most important one first.
        #[arg(value_name = "ROLE", required_unless_present = "none")]
        roles: Vec<String>,
        /// Remove all roles.
        #[arg(long, conflicts_with = "roles")]
        none: bool,
    },
    /// Replace the password of an account. Its sessions end.
    SetPassword {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
        /// Read the password from standard input. A final line break is removed.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Disable an account. Nobody can log in to it, and its sessions end.
    Disable {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Enable a disabled account.
    Enable {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove an account permanently. Its sessions end, and its id is never reused.
    Remove {
        /// The user name.
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask for confirmation.
        #[arg(long)]
        yes: bool,
    },
    /// Add the accounts of a file, one per line.
    Import(import::Arguments),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(format!("[authority] store: {error}"))
    }
}

pub(super) fn run(path: &Path, format: BasicFormat, command: Command) -> ExitCode {
    let result = Accounts::open(path, format).and_then(|accounts| accounts.run(command));
    exit_code(result)
}

/// The accounts of a policy's authority.
struct Accounts {
    runtime: tokio::runtime::Runtime,
    store: Store,
    settings: Arc<IssuerSettings>,
    format: BasicFormat,
}

impl Accounts {
    fn open(path: &Path, format: BasicFormat) -> Result<Self, Failure> {
        let compiled = load(path, MissingKey::Ephemeral).map_err(Failure::Printed)?;
        let settings = compiled.policy.issuer_settings.ok_or_else(|| {
            format!(
                "{}: there is no [authority], so there are no accounts: add [authority] with issuer and audience",
                path.display()
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
        // The compiled policy contains the whole path of the store, so the base is empty.
        let store = runtime.block_on(Store::open(&settings.store.0, Path::new("")))?;
        Ok(Self { runtime, store, settings, format })
    }

    fn run(&self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Add { name, id, roles, scopes, attributes, password_stdin } => {
                let name = self.name(&name)?;
                let id = id.unwrap_or_else(|| name.as_str().to_owned());
                row::check_id(&id)?;
                row::check_roles(&roles)?;
                row::check_scopes(&scopes)?;
                let attributes = parse_attributes(&attributes)?;
                self.add(&name, id, roles, scopes, attributes, password_stdin)
            }
            Command::List => listing::list(self),
            Command::SetRoles { name, roles, none: _ } => {
                row::check_roles(&roles)?;
                let change = AccountChange { roles: Some(roles), ..AccountChange::default() };
                let account = self.change(&name, &change)?;
                self.print(&account, &format!("now has the roles: {}", listed(&account.roles)));
                Ok(())
            }
            Command::SetPassword { name, password_stdin } => self.set_password(&name, password_stdin),
            Command::Disable { name } => self.set_disabled(&name, true),
            Command::Enable { name } => self.set_disabled(&name, false),
            Command::Remove { name, yes } => self.remove(&name, yes),
            Command::Import(arguments) => import::import(self, &arguments),
        }
    }

    fn add(
        &self,
        name: &UserName,
        id: String,
        roles: Vec<String>,
        scopes: Vec<String>,
        attributes: Map<String, Value>,
        password_stdin: bool,
    ) -> Result<(), Failure> {
        // Check the name and the id first, before the user types a password.
        if self.account(name)?.is_some() {
            return Err(taken(name).into());
        }
        if let Some(why) = self.is_a_service(&id) {
            return Err(why.into());
        }
        let password = hashed(&password::read(password_stdin, name)?)?;
        let account = NewAccount {
            id: id.clone(),
            name: name.as_str().to_owned(),
            password,
            roles,
            scopes,
            attributes,
            disabled: false,
        };
        let added = self.runtime.block_on(self.store.add(&[account], millis()))?;
        match added.first() {
            Some(Added::Added) => {}
            Some(Added::NameTaken) | None => return Err(taken(name).into()),
            Some(Added::IdTaken) => {
                return Err(format!("another account has the id \"{id}\": choose another --id").into());
            }
            Some(Added::IdRetired) => return Err(retired(&id).into()),
        }
        match self.format {
            BasicFormat::Json => print_line(&json!({ "id": id, "name": name.as_str() }).to_string()),
            BasicFormat::Text => print_line(&format!("{name} is added")),
        }
        Ok(())
    }

    /// Returns an error message if a service has this id. Upstreams would see the same `sub` for the account and the
    /// service.
    fn is_a_service(&self, id: &str) -> Option<String> {
        let known = self.settings.clients.contains_key(id);
        known.then(|| format!("\"{id}\" is the id of a service ([authority.client]): choose another --id"))
    }

    fn set_password(&self, name: &str, password_stdin: bool) -> Result<(), Failure> {
        let canonical = self.name(name)?;
        if self.account(&canonical)?.is_none() {
            return Err(unknown(&canonical).into());
        }
        let password = hashed(&password::read(password_stdin, &canonical)?)?;
        // The sessions end because someone else may know the old password.
        let change =
            AccountChange { password: Some(password), end_sessions: true, ..AccountChange::default() };
        let account = self.change(name, &change)?;
        self.print(&account, "has a new password; its sessions have ended");
        Ok(())
    }

    fn set_disabled(&self, name: &str, disabled: bool) -> Result<(), Failure> {
        let change =
            AccountChange { disabled: Some(disabled), end_sessions: disabled, ..AccountChange::default() };
        let account = self.change(name, &change)?;
        self.print(&account, if disabled { "is disabled; its sessions have ended" } else { "is enabled" });
        Ok(())
    }

    fn remove(&self, name: &str, yes: bool) -> Result<(), Failure> {
        let name = self.name(name)?;
        let Some(account) = self.account(&name)? else { return Err(unknown(&name).into()) };
        if !yes {
            if !std::io::stdin().is_terminal() {
                let why = format!(
                    "{name} would be removed permanently; without a terminal to confirm on, pass --yes"
                );
                return Err(Failure::Usage(why));
            }
            print_error(&format!("Remove {name} (id {}) permanently? Type the name to confirm:", account.id));
            let mut answer = String::new();
            let read = std::io::stdin().lock().read_line(&mut answer);
            if read.is_err() || !UserName::parse(answer.trim()).is_ok_and(|answer| answer == name) {
                return Err("not confirmed; the account was not removed".to_owned().into());
            }
        }
        let removed = self.runtime.block_on(self.store.remove(name.as_str(), millis()))?;
        let (account, _) = removed.ok_or_else(|| unknown(&name))?;
        self.print(&account, "was removed; its id will not be reused");
        Ok(())
    }

    fn change(&self, name: &str, change: &AccountChange) -> Result<Account, Failure> {
        let name = self.name(name)?;
        let changed = self.store.change(name.as_str(), change, millis());
        let (account, _) = self.runtime.block_on(changed)?.ok_or_else(|| unknown(&name))?;
        Ok(account)
    }

    fn account(&self, name: &UserName) -> Result<Option<Account>, Failure> {
        Ok(self.runtime.block_on(self.store.account_by_name(name.as_str()))?)
    }

    fn name(&self, text: &str) -> Result<UserName, Failure> {
        UserName::parse(text).map_err(|fault| format!("{text:?} is not a user name: {fault}").into())
    }

    fn print(&self, account: &Account, what: &str) {
        match self.format {
            BasicFormat::Json => print_line(&listing::as_json(account).to_string()),
            BasicFormat::Text => print_line(&format!("{} {what}", account.name)),
        }
    }
}

fn hashed(password: &str) -> Result<PasswordHash, Failure> {
    hash_password(password).map_err(|_| {
        "cannot hash the password: out of memory, or no random numbers available".to_owned().into()
    })
}

fn unknown(name: &UserName) -> String {
    format!("no account \"{name}\"; portcullis user list lists all accounts")
}

fn taken(name: &UserName) -> String {
    format!("the account \"{name}\" already exists; portcullis user set-roles and set-password change it")
}

fn retired(id: &str) -> String {
    format!(
        "the id \"{id}\" belonged to an account that was removed, and services may still know it by that id: choose \
         another --id"
    )
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn parse_attributes(texts: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut attributes = Map::new();
    for text in texts {
        let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) =
            parts.ok_or_else(|| Failure::Usage(format!("--attribute {text:?}: expected KEY=VALUE")))?;
        if attributes.insert(key.to_owned(), value.into()).is_some() {
            return Err(Failure::Usage(format!("--attribute {key}: given twice")));
        }
    }
    Ok(attributes)
}

/// Returns the current time in milliseconds since 1970, the unit of the store.
fn millis() -> i64 {
    let now = Now::read();
    let millis = now.unix.saturating_mul(1000).saturating_add(u64::from(now.subsec_nanos / 1_000_000));
    i64::try_from(millis).unwrap_or(i64::MAX)
}
