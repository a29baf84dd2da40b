//! Reports valid settings that are probably mistakes.

use super::Subject;
use crate::config::file::{DpopNonce, File};
use crate::config::place::nearest;
use crate::config::values::Literal;
use crate::policy::Faults;
use crate::route::known_methods;

pub(super) fn lint(subject: &Subject<'_>, faults: &mut Faults<'_>) {
    let file = subject.file;
    empty_lists(file, faults);
    methods(file, faults);
    colons(file, faults);
    white_space(file, faults);
    joined_names(file, faults);
    nonces(file, faults);
}

/// Reports empty lists. They look like requirements but require nothing.
fn empty_lists(file: &File, faults: &mut Faults<'_>) {
    for (index, route) in file.route.iter().enumerate() {
        let key = format!("route[{index}].methods");
        if route.methods.is_empty() && faults.loaded.places.is_given(&key) {
            let hint = "list the intended names, or leave methods out, which means the same";
            faults.warn("empty_list", &key, "an empty list matches every method", hint);
        }
    }
    for (table, requirements) in file.requirements() {
        let lists = requirements.lists().map(|(name, list)| {
            let means = match name {
                "not_roles" => "excludes no role",
                "scopes" | "any_scopes" => "requires no scope",
                "issuers" => "accepts every issuer",
                _ => "requires no role",
            };
            (name, list.is_empty(), means)
        });
        for (name, is_empty, means) in
            lists.into_iter().chain([("claims", requirements.claims.is_empty(), "requires no claim")])
        {
            let key = format!("{table}.{name}");
            if is_empty && faults.loaded.places.is_given(&key) {
                let hint = format!("list the intended names, or leave {name} out, which means the same");
                faults.warn("empty_list", &key, format!("an empty list {means}"), hint);
            }
        }
    }
}

/// Reports unknown methods. No client sends such a method.
fn methods(file: &File, faults: &mut Faults<'_>) {
    for (index, route) in file.route.iter().enumerate() {
        for (nth, method) in route.methods.iter().enumerate() {
            if known_methods().any(|known| known == method) {
                continue;
            }
            let known: Vec<&str> = known_methods().collect();
            let near = nearest(&method.to_ascii_uppercase(), &known);
            let near = near.map(|near| format!("\"{near}\", the nearest one; ")).unwrap_or_default();
            let hint = format!("{near}or waive this, if clients do send it");
            let key = format!("route[{index}].methods[{nth}]");
            faults.warn("unknown_method", &key, format!("\"{method}\" is not a registered method"), hint);
        }
    }
}

/// Reports segments such as `:id`. Other routers use this syntax for parameters, but here the segment is a literal.
fn colons(file: &File, faults: &mut Faults<'_>) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(is_word);
    for (index, route) in file.route.iter().enumerate() {
        let name = route.path.split('/').find_map(|segment| segment.strip_prefix(':').filter(is_name));
        if let Some(name) = name {
            faults.warn(
                "colon_parameter",
                &format!("route[{index}].path"),
                format!("`:{name}` is a literal segment here and matches only itself"),
                format!("use `{{{name}}}` for a parameter"),
            );
        }
    }
}

/// Reports nonces that the other gateways of a fleet refuse. A client that gets its nonce from one gateway and sends the
/// proof to another gets only another nonce.
fn nonces(file: &File, faults: &mut Faults<'_>) {
    let Some(shared) = &file.shared else { return };
    let mut requirements = file.requirements();
    let uses_proofs = shared.replay
        || file.dpop.announce
        || file.dpop.nonce == DpopNonce::Required
        || requirements.any(|(_, requirements)| requirements.require_bound);
    if uses_proofs && file.dpop.nonce_secret.is_none() {
        faults.warn(
            "nonces_not_shared",
            "dpop.nonce_secret",
            "nothing, beside [shared]: each gateway refuses the DPoP nonces of the others",
            "the same secret for all gateways: openssl rand -hex 32",
        );
    }
}

/// Reports a name that looks like several. As one name it matches no token: `not_roles = "suspended, left"` would exclude
/// nobody. The name of a directory's group has commas too, but an equals sign before them.
fn joined_names(file: &File, faults: &mut Faults<'_>) {
    for (table, requirements) in file.requirements() {
        for (name, list) in requirements.lists() {
            for (nth, text) in list.iter().enumerate() {
                let is_joined = name != "issuers" && text.contains([',', ';']) && !text.contains('=');
                if is_joined {
                    let names: Vec<_> =
                        text.split([',', ';']).map(str::trim).filter(|name| !name.is_empty()).collect();
                    faults.warn(
                        "joined_names",
                        &format!("{table}.{name}[{nth}]"),
                        format!("{text:?} is one name, which contains a comma or a semicolon"),
                        format!("write {names:?}, or waive this, if tokens contain the name as it is"),
                    );
                }
            }
        }
    }
}

/// Reports names that begin or end with white space, which is hard to see.
fn white_space(file: &File, faults: &mut Faults<'_>) {
    let mut look = |key: &dyn Fn() -> String, text: &str| {
        if text.trim() != text {
            faults.warn(
                "white_space",
                &key(),
                format!("{text:?} begins or ends with white space, which is part of the name"),
                format!("{:?}", text.trim()),
            );
        }
    };
    let mut names = |table: &str, lists: &[(&str, &[String])]| {
        for (name, list) in lists {
            for (nth, text) in list.iter().enumerate() {
                look(&|| format!("{table}.{name}[{nth}]"), text);
            }
        }
    };
    for (index, issuer) in file.issuer.iter().enumerate() {
        let lists: [(&str, &[String]); 4] = [
            ("audience", &issuer.audience),
            ("types", &issuer.types),
            ("required_claims", &issuer.required_claims),
            ("tenants", &issuer.tenants),
        ];
        names(&format!("issuer[{index}]"), &lists);
    }
    if let Some(authority) = &file.authority {
        names("authority", &[("audience", &authority.audience)]);
        for (id, client) in &authority.client {
            let lists: [(&str, &[String]); 3] =
                [("roles", &client.roles), ("scopes", &client.scopes), ("audience", &client.audience)];
            names(&format!("authority.client.{id}"), &lists);
        }
    }
    for (table, requirements) in file.requirements() {
        names(&table, &requirements.lists());
    }
    for (index, issuer) in file.issuer.iter().enumerate() {
        let kid = issuer.kid.as_deref().unwrap_or_default();
        for (name, text) in [
            ("issuer", &*issuer.issuer),
            ("kid", kid),
            ("roles", &issuer.roles),
            ("scopes", &issuer.scopes),
            ("subject", &issuer.subject),
            ("audience_claim", &issuer.audience_claim),
        ] {
            look(&|| format!("issuer[{index}].{name}"), text);
        }
    }
    if let Some(authority) = &file.authority {
        look(&|| "authority.issuer".to_owned(), &authority.issuer);
        for (claim, attribute) in &authority.claims {
            look(&|| format!("authority.claims.{claim}"), claim);
            look(&|| format!("authority.claims.{claim}"), attribute);
        }
    }
    for name in file.upstream.keys() {
        look(&|| format!("upstream.{name}"), name);
    }
    for (index, route) in file.route.iter().enumerate() {
        look(&|| format!("route[{index}].name"), &route.name);
    }
    for (table, requirements) in file.requirements() {
        for (claim, values) in requirements.claims {
            look(&|| format!("{table}.claims.{claim}"), claim);
            for value in values.literals() {
                if let Literal::Text(text) = value {
                    look(&|| format!("{table}.claims.{claim}"), text);
                }
            }
        }
    }
}
