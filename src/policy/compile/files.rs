//! Compiles `files` of a route.

use super::{Faults, shaping};
use crate::config::file::{Access, File, RouteSection};
use crate::forward::edits::AnswerFields;
use crate::forward::files::Files;
use crate::forward::rewrite::Rewrite;
use crate::route::Methods;
use http::Method;
use std::path::{Path, PathBuf};

/// Returns the folder of a route. The keys of forwarding have no effect on files, so they are faults.
pub(super) fn folder(
    key: &str,
    table: &RouteSection,
    file: &File,
    faults: &mut Faults<'_>,
) -> Option<PathBuf> {
    let at = format!("{key}.files");
    shaping::refuse_forwarding(key, table, "files", faults);
    let path = faults.unwatched_path(&table.files);
    let shown = path.display().to_string();
    let root = match path.canonicalize() {
        Ok(root) if root.is_dir() => root,
        Ok(_) => {
            faults.fault("bad_file", &at, format!("{shown} is not a folder"), "the path of a folder");
            return None;
        }
        Err(error) => {
            faults.fault("bad_file", &at, format!("{shown}: {error}"), "the path of a folder that exists");
            return None;
        }
    };
    let state = faults.unwatched_path(&file.state.dir);
    let base = faults.unwatched_path(".");
    for (what, private) in [("the policy file", base), ("the state of the gateway", state)] {
        let private = private.canonicalize().unwrap_or_default();
        if private.starts_with(&root) || root == Path::new("/") {
            let found = format!("{shown} contains {what}");
            faults.fault("bad_file", &at, found, "a folder that contains only files for clients");
            return None;
        }
    }
    Some(root)
}

/// Returns the methods of a route with files.
pub(super) fn methods(key: &str, methods: &Methods, faults: &mut Faults<'_>) -> Methods {
    let read = Methods::parse(&["GET"]).unwrap_or_else(|_| Methods::any());
    if methods.is_any() {
        return read;
    }
    if let Some(other) = methods.iter().find(|method| !matches!(**method, Method::GET | Method::HEAD)) {
        let found = format!("\"{other}\" on a route with files");
        faults.fault("impossible_rule", &format!("{key}.methods"), found, "[\"GET\"], or remove the key");
    }
    methods.clone()
}

pub(super) fn compile(
    table: &RouteSection,
    root: PathBuf,
    rewrite: Option<Box<Rewrite>>,
    answer_fields: Option<Box<AnswerFields>>,
) -> Files {
    Files { root, rewrite, answer_fields, is_private: table.access != Access::Public }
}
