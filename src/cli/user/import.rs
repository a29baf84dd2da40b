//! `portcullis user import`: adds accounts from a file of any size, in batches with one transaction each. A faulty line
//! is reported with its number and skipped. The other lines are imported.

mod lines;
mod progress;

use super::row::{Columns, ImportedPassword, Row};
use super::{Accounts, BasicFormat, Failure, REFUSED, millis, print_line, retired};
use crate::authority::{hash_password, password_hash};
use crate::store::{Account, AccountChange, Added, NewAccount, PasswordHash};
use clap::ValueEnum;
use lines::Lines;
use progress::Progress;
use serde_json::json;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of accounts per transaction. Such a transaction delays a login at a running gateway by at most a few
/// milliseconds.
const BATCH: usize = 500;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// The file; "-" for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The format of the file; determined by its extension if not given.
    #[arg(long, value_enum)]
    input: Option<Input>,
    /// The column that contains a field, such as name=email; may be repeated.
    #[arg(long = "map", value_name = "FIELD=COLUMN")]
    maps: Vec<String>,
    /// A column that becomes an attribute of the account; may be repeated.
    #[arg(long = "attribute", value_name = "COLUMN")]
    attributes: Vec<String>,
    /// Update existing accounts: the roles, scopes, attributes and state that the file contains, and the password only
    /// if the account has none.
    #[arg(long)]
    update: bool,
    /// Print the changes without making them.
    #[arg(long)]
    dry_run: bool,
}

/// The format of a file of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Input {
    /// Comma-separated values with a line of column names.
    Csv,
    /// A JSON object on each line.
    Jsonl,
}

/// Numbers of lines by outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Summary {
    added: u64,
    updated: u64,
    unchanged: u64,
    skipped: u64,
    faulty: u64,
    without_password: u64,
}

pub(super) fn import(accounts: &Accounts, arguments: &Arguments) -> Result<(), Failure> {
    let columns = Columns::parse(&arguments.maps, &arguments.attributes).map_err(Failure::Usage)?;
    let input = match (arguments.input, arguments.file.extension().and_then(|end| end.to_str())) {
        (Some(input), _) => input,
        (None, Some("csv")) => Input::Csv,
        (None, Some("jsonl" | "ndjson")) => Input::Jsonl,
        (None, _) => {
            let why =
                format!("{}: unknown format; pass --input csv or --input jsonl", arguments.file.display());
            return Err(Failure::Usage(why));
        }
    };
    let (lines, size) = Lines::open(&arguments.file, input, &columns)?;
    let mut import = Import {
        accounts,
        update: arguments.update,
        dry_run: arguments.dry_run,
        progress: Progress::start(size),
        summary: Summary::default(),
        would_be: HashSet::new(),
    };
    let ignored = lines.ignored().join(", ");
    if !ignored.is_empty() {
        import.progress.note(&format!("ignored columns: {ignored}"));
    }
    let ended = import.all(lines, &columns);
    import.progress.finish();
    import.print_summary(accounts.format);
    ended?;
    if import.summary.faulty > 0 { Err(Failure::Printed(ExitCode::from(REFUSED))) } else { Ok(()) }
}

struct Import<'a> {
    accounts: &'a Accounts,
    update: bool,
    dry_run: bool,
    progress: Progress,
    summary: Summary,
    /// The names that a dry run would have added. A second line with such a name would be skipped.
    would_be: HashSet<String>,
}

impl Import<'_> {
    fn all(&mut self, mut lines: Lines, columns: &Columns) -> Result<(), Failure> {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some((number, line)) = lines.next_line()? {
            match line.and_then(|line| Row::read(columns, line)) {
                Ok(row) => batch.push((number, row)),
                Err(why) => self.fault(number, &why),
            }
            if batch.len() == BATCH {
                self.batch(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))?;
                self.progress.done(number, lines.bytes());
            }
        }
        self.batch(batch)
    }

    fn batch(&mut self, mut batch: Vec<(u64, Row)>) -> Result<(), Failure> {
        // Handle existing accounts first. Then only the passwords of new accounts are hashed.
        let mut fresh = Vec::with_capacity(batch.len());
        for (number, row) in batch.drain(..) {
            match self.accounts.account(&row.name)? {
                Some(account) if self.update => self.change(number, &account, row)?,
                Some(_) => self.summary.skipped += 1,
                None => match self.accounts.is_a_service(row.id.as_deref().unwrap_or(row.name.as_str())) {
                    Some(why) => self.fault(number, &why),
                    None => fresh.push((number, row)),
                },
            }
        }
        if self.dry_run {
            return self.pretend(fresh);
        }
        let secrets = hashes(&fresh)?;
        let (numbers, new): (Vec<u64>, Vec<NewAccount>) = fresh
            .into_iter()
            .zip(secrets)
            .map(|((number, row), hash)| (number, new_account(row, hash)))
            .unzip();
        if new.is_empty() {
            return Ok(());
        }
        let added = self.accounts.runtime.block_on(self.accounts.store.add(&new, millis()))?;
        for ((number, new), added) in numbers.into_iter().zip(&new).zip(added) {
            match added {
                Added::Added => self.count_added(new.password.encoded.is_empty()),
                // Another line or another process has added an account with this name.
                Added::NameTaken => self.summary.skipped += 1,
                Added::IdTaken => self.fault(number, &format!("another account has the id \"{}\"", new.id)),
                Added::IdRetired => self.fault(number, &retired(&new.id)),
            }
        }
        Ok(())
    }

    /// Counts the outcomes that the import of these new accounts would have.
    fn pretend(&mut self, fresh: Vec<(u64, Row)>) -> Result<(), Failure> {
        for (number, row) in fresh {
            let name = row.name.as_str();
            let id = row.id.as_deref().unwrap_or(name);
            let holder = self.accounts.runtime.block_on(self.accounts.store.account(id))?;
            if holder.is_some() {
                self.fault(number, &format!("another account has the id \"{id}\""));
            } else if self.would_be.insert(name.to_owned()) {
                self.count_added(matches!(row.secret, ImportedPassword::None));
            } else {
                self.summary.skipped += 1;
            }
        }
        Ok(())
    }

    fn count_added(&mut self, without_password: bool) {
        self.summary.added += 1;
        self.summary.without_password += u64::from(without_password);
    }

    /// Updates the fields of an account that differ from its line. An unchanged account is not written, because a write
    /// would revoke the owner's tokens.
    fn change(&mut self, number: u64, account: &Account, row: Row) -> Result<(), Failure> {
        if row.id.as_ref().is_some_and(|id| *id != account.id) {
            self.fault(
                number,
                &format!("the account has the id \"{}\", and an id cannot change", account.id),
            );
            return Ok(());
        }
        let mut attributes = account.attributes.clone();
        attributes.extend(row.attributes.clone());
        let change = AccountChange {
            roles: row.roles.clone().filter(|roles| *roles != account.roles),
            scopes: row.scopes.clone().filter(|scopes| *scopes != account.scopes),
            attributes: Some(attributes).filter(|attributes| *attributes != account.attributes),
            disabled: row.disabled.filter(|disabled| *disabled != account.disabled),
            password: None,
            end_sessions: row.disabled == Some(true) && !account.disabled,
        };
        let gets_password = account.password.is_empty() && !matches!(row.secret, ImportedPassword::None);
        let same = change.roles.is_none()
            && change.scopes.is_none()
            && change.attributes.is_none()
            && change.disabled.is_none()
            && !gets_password;
        if same {
            self.summary.unchanged += 1;
            return Ok(());
        }
        self.summary.updated += 1;
        if self.dry_run {
            return Ok(());
        }
        let mut change = change;
        if gets_password {
            change.password = hashes(&[(number, row)])?.pop();
        }
        self.accounts.change(&account.name, &change).map(|_| ())
    }

    fn fault(&mut self, number: u64, why: &str) {
        self.summary.faulty += 1;
        self.progress.note(&format!("line {number}: {why}"));
    }

    fn print_summary(&self, format: BasicFormat) {
        let Summary { added, updated, unchanged, skipped, faulty, without_password } = self.summary;
        match format {
            BasicFormat::Json => print_line(
                &json!({
                    "dry_run": self.dry_run, "added": added, "updated": updated, "unchanged": unchanged,
                    "skipped": skipped, "faulty": faulty, "without_password": without_password,
                })
                .to_string(),
            ),
            BasicFormat::Text => {
                let mut text = format!("{added} added");
                for (count, what) in [
                    (without_password, "of them without a password"),
                    (updated, "updated"),
                    (unchanged, "unchanged"),
                    (skipped, "skipped because their names are taken"),
                    (faulty, "faulty"),
                ] {
                    if count > 0 {
                        text.push_str(&format!(", {count} {what}"));
                    }
                }
                if self.dry_run {
                    text.push_str(" (dry run: nothing was changed)");
                }
                print_line(&text);
            }
        }
    }
}

fn new_account(row: Row, password: PasswordHash) -> NewAccount {
    NewAccount {
        id: row.id.unwrap_or_else(|| row.name.as_str().to_owned()),
        name: row.name.as_str().to_owned(),
        password,
        roles: row.roles.unwrap_or_default(),
        scopes: row.scopes.unwrap_or_default(),
        attributes: row.attributes,
        disabled: row.disabled.unwrap_or_default(),
    }
}

/// Returns the password hashes of these lines. Hashes plain passwords on all cores at the lowest priority, because a
/// gateway may run on the same machine.
fn hashes(rows: &[(u64, Row)]) -> Result<Vec<PasswordHash>, Failure> {
    let plain = rows.iter().filter(|(_, row)| matches!(row.secret, ImportedPassword::Plain(_))).count();
    let next = AtomicUsize::new(0);
    let work = || {
        let _ = rustix::process::setpriority_process(None, 19);
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((_, row)) = rows.get(at) else { return Ok(done) };
            if let ImportedPassword::Plain(password) = &row.secret {
                done.push((at, hash_password(password)?));
            }
        }
    };
    let mut hashes: Vec<PasswordHash> = rows
        .iter()
        .map(|(_, row)| match &row.secret {
            ImportedPassword::None | ImportedPassword::Plain(_) => PasswordHash::default(),
            ImportedPassword::Hash(hash) => password_hash(hash.clone()),
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(plain);
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(crate::authority::Busy))).collect()
    });
    for done in done {
        let done = done.map_err(|_| "cannot hash a password: out of memory".to_owned())?;
        for (at, hash) in done {
            hashes[at] = hash;
        }
    }
    Ok(hashes)
}
