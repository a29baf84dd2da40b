//! Finds files of a guarded route that another route sends for less.
//!
//! The gateway reads the paths of files itself, so no spelling leads to them. Another folder or prefix, another host or
//! another header field does.

use super::variants::{self, SpellingKind};
use super::{Attack, Way};
use crate::forward::files::Files;
use crate::hex::percent_encoded;
use crate::policy::{Handler, Question};
use crate::review::sample::{self, Sample};
use crate::route::HostPattern;
use http::header::HOST;
use http::{HeaderValue, Method};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The maximum number of routes with files whose folders are tried for each request.
const FOLDERS_MAX: usize = 100;

impl Attack<'_> {
    /// Looks for other requests that get the file of this one.
    pub(super) fn try_files(&mut self, sample: &Sample, files: &Files, url: &str) {
        let (policy, route) = (self.policy, sample.route);
        let Some(plain) = sample::question(&Method::GET, url, &sample.fields) else { return };
        let plain = plain.at(self.now);
        let verdict = self.examiner.verdict(&plain);
        if verdict.outcome.passes() || verdict.route != Some(route) {
            return;
        }
        let Some(file) = self.file(files, &plain) else { return };
        let mut odd = plain.clone();
        let host = plain.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.filter(|_| policy.routes[route].matcher.host != HostPattern::Any);
        for other in host.map(variants::others).into_iter().flatten() {
            let Ok(host) = HeaderValue::try_from(other) else { continue };
            odd.parts.headers.insert(HOST, host);
            self.try_file(route, SpellingKind::OtherHost, (&plain, &odd), &file);
        }
        for fields in self.fields.clone().into_iter().filter(|fields| **fields != sample.fields) {
            odd.parts.headers = plain.parts.headers.clone();
            for (name, _) in sample.fields.iter() {
                odd.parts.headers.remove(name);
            }
            fields.set(&mut odd.parts.headers);
            self.try_file(route, SpellingKind::OtherHeader, (&plain, &odd), &file);
        }
        odd.parts.headers = plain.parts.headers.clone();
        let folders = policy.routes.iter().filter_map(|route| match &route.handler {
            Handler::Files(files) => Some(files),
            Handler::Forward(_)
            | Handler::Answer(_)
            | Handler::Publish(_)
            | Handler::Redirect(_)
            | Handler::Receive(..) => None,
        });
        for other in folders.take(FOLDERS_MAX) {
            let Ok(below) = file.strip_prefix(&other.root) else { continue };
            for source in Way::of(other.rewrite.as_deref()).sources(&path_of(below)) {
                let Ok(uri) = source.parse() else { continue };
                odd.parts.uri = uri;
                self.try_file(route, SpellingKind::Rewritten, (&plain, &odd), &file);
            }
        }
    }

    /// Records a bypass if another route sends the file for less.
    fn try_file(
        &mut self,
        route: usize,
        kind: SpellingKind,
        (plain, odd): (&Question, &Question),
        file: &Path,
    ) {
        let policy = self.policy;
        let Ok(head) = policy.front.head(&odd.parts) else { return };
        let Ok(found) = policy.table.find(&head) else { return };
        let by = *found.entry;
        let Handler::Files(other) = &policy.routes[by].handler else { return };
        let is_hopeless = by == route
            || self.known.contains(&(route, kind))
            || other.place(&head.path).is_none_or(|place| place != file);
        if !is_hopeless {
            self.record_if_weaker((route, by), kind, plain, odd);
        }
    }

    /// Returns the file that a request gets. `None` if the head of the request is rejected.
    fn file(&self, files: &Files, question: &Question) -> Option<PathBuf> {
        files.place(&self.policy.front.head(&question.parts).ok()?.path)
    }
}

/// Returns the path of a request for a file below a folder.
fn path_of(below: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let names = below.iter().map(|name| percent_encoded(name.as_bytes(), is_plain));
    format!("/{}", names.collect::<Vec<_>>().join("/"))
}
