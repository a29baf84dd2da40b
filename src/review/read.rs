//! Reads, compiles and lints a policy file. Reports all faults together.

use super::lint;
use crate::config;
use crate::diagnostic::Diagnostic;
use crate::keyring::MissingKey;
use crate::policy::{Compiled, Policy, compile, compile_after};
use std::path::Path;

/// Reads and compiles a file. `before` is the previous policy, if any.
///
/// # Errors
///
/// Returns all faults, in the order of the file.
pub fn read(
    path: &Path,
    missing_key: MissingKey,
    before: Option<&Policy>,
) -> Result<Compiled, Vec<Diagnostic>> {
    let (loaded, mut faults) = config::survey(path);
    let Some(loaded) = loaded else { return Err(faults) };
    if faults.is_empty() {
        let compiled = match before {
            Some(before) => compile_after(&loaded, missing_key, before)?,
            None => compile(&loaded, missing_key)?,
        };
        return Ok(lint(&loaded, compiled));
    }
    // The file is rejected. The readable part is still compiled, to report its faults too.
    let more = match compile(&loaded, MissingKey::Ephemeral) {
        Ok(compiled) => {
            let compiled = lint(&loaded, compiled);
            compiled.waivers.sift(compiled.warnings).left
        }
        Err(more) => more,
    };
    let own = more.into_iter().filter(|found| !faults.iter().any(|cause| follows_from(found, cause)));
    let own: Vec<_> = own.collect();
    faults.extend(own);
    faults.sort_by_key(|fault| fault.order());
    Err(faults)
}

/// Whether the value that `cause` reports as unreadable also explains `found`.
fn follows_from(found: &Diagnostic, cause: &Diagnostic) -> bool {
    let within = |key: &str, table: &str| {
        key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let name = cause.key.rsplit('.').next().unwrap_or_default();
    // An unknown key does not affect other keys, so findings of the same table have other causes.
    let is_about =
        cause.id != "unknown_key" && (within(&found.key, &cause.key) || within(&cause.key, &found.key));
    is_about || found.refers_to.as_deref() == Some(name)
}
