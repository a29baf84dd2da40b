//! Roles and scopes that are nearly another one: a slip of the pen refuses people at best, and at worst lets them in.

use super::Subject;
use crate::policy::Faults;
use std::collections::BTreeMap;

/// More names than these are not compared with each other.
const NAMES_MAX: usize = 500;
/// Shorter names differ by one letter all the time.
const LETTERS_MIN: usize = 5;
/// Longer names are not compared letter by letter, which takes time and memory by the square of their lengths.
const LETTERS_MAX: usize = 100;

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let routes = || subject.file.route.iter().enumerate();
    let mut roles = BTreeMap::new();
    let mut scopes = BTreeMap::new();
    for (index, route) in routes() {
        for (list, name) in [(&route.roles, "roles"), (&route.all_roles, "all_roles")] {
            for role in list {
                used(&mut roles, role, || format!("route[{index}].{name}"));
            }
        }
        for scope in &route.scopes {
            used(&mut scopes, scope, || format!("route[{index}].scopes"));
        }
    }
    // What the authority gives its clients is to fit what routes ask for.
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

/// A name: where it stands first, and how often it stands anywhere.
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
            // Of numbered names (`tier1`, `tier2`) each is meant.
            let numbered = name.bytes().chain(other.bytes()).any(|byte| byte.is_ascii_digit());
            same_letters || long && !numbered && strsim::damerau_levenshtein(name, other) == 1
        };
        // The one that stands once is the slip, if either is; of two such, the later in the alphabet is told.
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
