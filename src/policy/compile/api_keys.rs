//! Compiles `[api_keys]`, and reads the API keys from the state folder.

use super::Faults;
use super::identity::is_reserved;
use crate::api_key_file::ApiKeyFile;
use crate::authenticate::{API_KEY_ISSUER, ApiKeys};
use crate::config::file::File;
use crate::policy::Policy;
use http::HeaderName;
use std::sync::Arc;

/// The compiled table.
pub(super) struct ApiKeySettings {
    /// The header of API keys.
    pub(super) header: HeaderName,
    /// The file of the keys.
    pub(super) file: Arc<ApiKeyFile>,
    /// The keys.
    pub(super) keys: Arc<ApiKeys>,
}

/// Compiles the table. Returns `None` if the policy accepts no API keys, or after a fault.
pub(super) fn compile(
    file: &File,
    before: Option<&Policy>,
    faults: &mut Faults<'_>,
) -> Option<ApiKeySettings> {
    let section = file.api_keys.as_ref()?;
    if file.authority.as_ref().is_some_and(|authority| authority.issuer == API_KEY_ISSUER) {
        let hint = "use another name: API keys have this one";
        faults.fault("bad_value", "authority.issuer", format!("\"{API_KEY_ISSUER}\" is reserved"), hint);
    }
    let header = section.header.parse::<HeaderName>().ok().filter(|name| !is_reserved(name));
    if header.is_none() {
        faults.fault(
            "bad_header",
            "api_keys.header",
            format!("\"{}\" is not a header name, or already has another meaning", section.header),
            "use a dedicated header, such as \"X-API-Key\"; `Authorization: ApiKey` is always read",
        );
    }
    let folder = ApiKeyFile::in_folder(&faults.state_dir());
    let keys = match folder.read() {
        Ok(keys) => Some(ApiKeys::after(keys, before.and_then(|before| before.trust.api_keys()))),
        Err(why) => {
            let hint = "restore the file, which `portcullis apikey` writes, or remove it to revoke all keys";
            faults.fault("bad_api_keys", "api_keys", why, hint);
            None
        }
    };
    Some(ApiKeySettings { header: header?, file: Arc::new(folder), keys: Arc::new(keys?) })
}
