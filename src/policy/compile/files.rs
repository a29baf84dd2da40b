//! Compiles `files` of a route.

use super::{Faults, shaping};
use crate::config::file::{Access, File, RouteSection, Streams};
use crate::forward::edits::AnswerFields;
use crate::forward::files::{Files, Guarded};
use crate::forward::rewrite::Rewrite;
use crate::policy::{Handler, Route};
use crate::route::Methods;
use http::Method;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Returns the folder of a route. The keys of forwarding have no effect on files, so they are faults.
pub(super) fn folder(key: &str, table: &RouteSection, faults: &mut Faults<'_>) -> Option<PathBuf> {
    let at = format!("{key}.files");
    shaping::refuse_forwarding(key, table, "files", faults);
    let path = faults.loaded.base.join(&table.files);
    let shown = path.display();
    match path.canonicalize() {
        Ok(root) if root.is_dir() => return Some(root),
        Ok(_) => {
            faults.fault("bad_file", &at, format!("{shown} is not a folder"), "the path of a folder");
        }
        Err(error) => {
            faults.fault("bad_file", &at, format!("{shown}: {error}"), "the path of a folder that exists");
        }
    }
    None
}

/// Gives all routes with files the list of the files that they must not send: the policy, and all that it names. Called
/// when the rest of the policy is compiled, so that the list is complete.
pub(super) fn guard(file: &File, routes: &mut [Route], faults: &mut Faults<'_>) {
    if file.route.iter().all(|table| table.files.is_empty()) {
        return;
    }
    let mut paths = vec![faults.state_dir()];
    paths.extend(faults.loaded.path.clone());
    paths.extend(faults.named().map(Path::to_owned));
    let guarded = Arc::new(Guarded::new(paths));
    for (index, table) in file.route.iter().enumerate().filter(|(_, table)| !table.files.is_empty()) {
        // A folder that does not exist is reported by `folder`.
        let Ok(root) = faults.loaded.base.join(&table.files).canonicalize() else { continue };
        if let Some(path) = guarded.conflict(&root) {
            let found = format!("{} would serve {}", root.display(), path.display());
            let hint = "a folder that contains only files for clients, and nothing that the policy names";
            faults.fault("bad_file", &format!("route[{index}].files"), found, hint);
        }
    }
    for route in routes {
        if let Handler::Files(files) = &mut route.handler {
            files.guarded = Some(guarded.clone());
        }
    }
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
    // A folder that vanishes meanwhile has no files.
    let mount = root.metadata().map_or(0, |metadata| metadata.dev());
    Files {
        root,
        mount,
        guarded: None,
        rewrite,
        answer_fields,
        is_private: table.access != Access::Public,
        ends_with_token: table.streams == Streams::Expiry,
    }
}
