//! `portcullis user list`: prints accounts without their password hashes.

use super::{Accounts, BasicFormat, Failure, listed, print_line};
use crate::authority::scheme;
use crate::keyring::KeyInfo;
use crate::store::Account;
use serde_json::{Value, json};

/// Number of accounts per query.
const PAGE: u32 = 1000;

pub(super) fn list(accounts: &Accounts) -> Result<(), Failure> {
    let mut after = String::new();
    let mut widths = [0; 3];
    let mut count = 0;
    loop {
        let page = accounts.runtime.block_on(accounts.store.accounts(&after, PAGE))?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.name);
        match accounts.format {
            BasicFormat::Json => page.iter().enumerate().for_each(|(at, account)| {
                let before = if count == 0 && at == 0 { "[\n" } else { ",\n" };
                let _ = std::io::Write::write_all(
                    &mut std::io::stdout().lock(),
                    format!("{before}{}", as_json(account)).as_bytes(),
                );
            }),
            BasicFormat::Text => {
                let mut rows: Vec<[String; 4]> = page.iter().map(as_row).collect();
                if count == 0 {
                    rows.insert(0, ["NAME", "ID", "ROLES", "STATE"].map(str::to_owned));
                }
                for row in &rows {
                    for (width, cell) in widths.iter_mut().zip(row) {
                        *width = cell.chars().count().max(*width);
                    }
                }
                let [name, id, roles] = widths;
                for [a, b, c, state] in rows {
                    print_line(format!("{a:name$}  {b:id$}  {c:roles$}  {state}").trim_end());
                }
            }
        }
        count += page.len();
    }
    match accounts.format {
        BasicFormat::Json if count == 0 => print_line("[]"),
        BasicFormat::Json => print_line("\n]"),
        BasicFormat::Text if count == 0 => print_line("no accounts; portcullis user add adds one"),
        BasicFormat::Text => {}
    }
    Ok(())
}

fn as_row(account: &Account) -> [String; 4] {
    let state = if account.disabled {
        "disabled"
    } else if account.password.is_empty() {
        "no password"
    } else {
        "enabled"
    };
    [account.name.clone(), account.id.clone(), listed(&account.roles), state.to_owned()]
}

pub(super) fn as_json(account: &Account) -> Value {
    let created = u64::try_from(account.created / 1000).unwrap_or(0);
    json!({
        "id": account.id,
        "name": account.name,
        "roles": account.roles,
        "scopes": account.scopes,
        "attributes": account.attributes,
        "disabled": account.disabled,
        "created": KeyInfo::time(created),
        // The list contains the scheme and cost of the hash, so that operators can count outdated hashes. It never
        // contains the hash.
        "password": scheme(&account.password),
    })
}
