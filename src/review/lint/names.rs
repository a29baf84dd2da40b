//! Reports roles and scopes whose names are nearly equal. A typing error may reject authorized callers or admit others.

use super::Subject;
use crate::policy::Faults;
use std::collections::BTreeMap;

/// The maximum number of names to compare. Longer lists are not compared.
const NAMES_MAX: usize = 500;
/// The minimum length for a comparison by letters. Shorter names often differ by one letter on purpose.
const LETTERS_MIN: usize = 5;
/// The maximum length for a comparison by letters, which takes quadratic time and memory.
const LETTERS_MAX: usize = 100;

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let mut roles = BTreeMap::new();
    let mut scopes = BTreeMap::new();
    let all: Vec<_> = subject.file.requirements().collect();
    for (table, requirements) in &all {
        for (name, list) in requirements.lists() {
            let kind = match name {
                "scopes" | "any_scopes" => &mut scopes,
                "issuers" => continue,
                _ => &mut roles,
            };
            for text in list {
                used(kind, text, || format!("{table}.{name}"));
            }
        }
    }
    // The authority grants these roles and scopes to its clients. They must match the names in routes.
    for (id, client) in subject.file.authority.iter().flat_map(|authority| &authority.client) {
        for role in &client.roles {
            used(&mut roles, role, || format!("authority.client.{id}.roles"));
        }
        for scope in &client.scopes {
            used(&mut scopes, scope, || format!("authority.client.{id}.scopes"));
        }
    }
    near("role", &roles, faults);
    near("scope", &scopes, faults);
}

/// The names in use, with the key of the first use and the number of uses.
type Used<'n> = BTreeMap<&'n str, (String, usize)>;

fn used<'n>(names: &mut Used<'n>, name: &'n str, key: impl FnOnce() -> String) {
    names.entry(name).or_insert_with(|| (key(), 0)).1 += 1;
}

fn near(what: &str, names: &Used<'_>, faults: &mut Faults<'_>) {
    if names.len() > NAMES_MAX {
        return;
    }
    for (name, (key, count)) in names {
        let is_near = |other: &str| {
            let same_letters = name.eq_ignore_ascii_case(other);
            let lengths = LETTERS_MIN..=LETTERS_MAX;
            let long = lengths.contains(&name.len()) && lengths.contains(&other.len());
            // Names with digits, such as `tier1` and `tier2`, differ on purpose.
            let numbered = name.bytes().chain(other.bytes()).any(|byte| byte.is_ascii_digit());
            same_letters || long && !numbered && strsim::damerau_levenshtein(name, other) == 1
        };
        // A name that is used once is probably the mistake. If both names are used once, the later name in alphabetical
        // order is reported.
        let other = names.iter().find(|(other, (_, others))| {
            **other != *name && (count, **other) < (others, *name) && *count == 1 && is_near(other)
        });
        if let Some((other, _)) = other {
            faults.warn(
                "nearly_the_same",
                key,
                format!("the {what} \"{name}\" is used only here, and \"{other}\" elsewhere"),
                format!("use \"{other}\", if that is the intended name"),
            );
        }
    }
}
