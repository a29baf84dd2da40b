//! Answers requests with the files of a folder.
//!
//! The path of a file is the canonical path that an upstream would receive. No name begins with a dot, and no link leads
//! out of the folder. A folder is never listed.

use super::ResponseError;
use super::edits::AnswerFields;
use super::rewrite::Rewrite;
use crate::denial::Denial;
use crate::route::Head;
use crate::route::path::decoded;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_http::services::ServeFile;
use tower_http::services::fs::ServeFileSystemResponseBody;

/// The file that stands for its folder.
const INDEX: &str = "index.html";
/// The fields of a request that decide about the answer.
const CONDITIONS: [HeaderName; 5] = [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE];

/// The body of an answer with a file.
pub(crate) struct FileBody(ServeFileSystemResponseBody);

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody").finish_non_exhaustive()
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let polled = Pin::new(&mut self.get_mut().0).poll_frame(cx);
        polled.map(|frame| frame.map(|read| read.map_err(ResponseError::File)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The files of a route.
#[derive(Debug)]
pub struct Files {
    /// The folder, as an absolute path without links.
    pub(crate) root: PathBuf,
    pub(crate) rewrite: Option<Box<Rewrite>>,
    pub(crate) answer_fields: Option<Box<AnswerFields>>,
    /// Whether only some callers may see the files, so that shared caches must not keep them.
    pub(crate) is_private: bool,
}

/// The answer to a request for a file.
#[derive(Debug)]
pub(crate) enum FileAnswer {
    File(Response<FileBody>),
    /// The path of a folder lacks its slash. Relative links of its page would be wrong.
    Redirect(Response<()>),
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// There is no such file, or it must not be served.
    Missing(&'static str),
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The path is refused.
    Path(Denial),
}

impl FileFault {
    pub(crate) fn denial(&self) -> Denial {
        match self {
            Self::Missing(_) => Denial::NotFound,
            Self::Unreadable(_) => Denial::UpstreamFailed,
            Self::Path(denial) => denial.clone(),
        }
    }

    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
                Self::Missing("there is no such file")
            }
            io::ErrorKind::PermissionDenied => Self::Missing("the gateway may not read the file"),
            _ => Self::Unreadable(error),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => f.write_str(why),
            Self::Unreadable(error) => write!(f, "the file cannot be read: {error}"),
            Self::Path(denial) => f.write_str(denial.finer().unwrap_or_default()),
        }
    }
}

impl Files {
    /// Returns the path below the folder, after the changes of the route.
    ///
    /// # Errors
    /// Refuses a path that the route's pattern turns into an invalid one.
    pub(crate) fn path(&self, path: &str) -> Result<String, Denial> {
        let path = self.rewrite.as_deref().map_or(Ok(path.into()), |rewrite| rewrite.path(path));
        path.map(|path| path.into_owned()).map_err(Denial::BadRequest)
    }

    /// Answers a GET or HEAD request.
    pub(crate) async fn answer(&self, head: &Head<'_>) -> Result<FileAnswer, FileFault> {
        let sent = self.path(&head.path).map_err(FileFault::Path)?;
        let relative = relative(&sent).ok_or(FileFault::Missing("a name begins with a dot or is invalid"))?;
        let (root, is_folder) = (self.root.clone(), sent.ends_with('/'));
        // The system may have to wait for the disk.
        let found = tokio::task::spawn_blocking(move || locate(&root, &relative, is_folder));
        let found = found.await.map_err(|error| FileFault::Unreadable(io::Error::other(error)))?;
        let path = match found? {
            Located::File(path) => path,
            Located::Folder => return Ok(FileAnswer::Redirect(self.to_folder(head))),
        };
        let mut fields = HeaderMap::new();
        for name in CONDITIONS {
            for value in head.headers.get_all(&name) {
                fields.append(&name, value.clone());
            }
        }
        if fields.contains_key(RANGE)
            && let Some(validator) = head.headers.get(IF_RANGE)
        {
            // The library ignores `If-Range`. A range of another version would damage the client's copy.
            let current = serve(&path, &Method::HEAD, HeaderMap::new()).await?;
            if !is_strong(validator) || current.headers().get(ETAG) != Some(validator) {
                fields.remove(RANGE);
            }
        }
        let mut response = serve(&path, head.method, fields).await?;
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(kind) = headers.get(CONTENT_TYPE)
            && kind.as_bytes().starts_with(b"text/")
            && let Ok(kind) = HeaderValue::from_bytes(&[kind.as_bytes(), b"; charset=utf-8"].concat())
        {
            headers.insert(CONTENT_TYPE, kind);
        }
        if self.is_private {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        if let Some(fields) = &self.answer_fields {
            fields.apply(headers);
        }
        Ok(FileAnswer::File(response))
    }

    /// Redirects to the path with a slash. A canonical path has no empty segment, so it names this host.
    fn to_folder(&self, head: &Head<'_>) -> Response<()> {
        let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", head.path)) {
            response.headers_mut().insert(LOCATION, location);
        }
        let kept = if self.is_private { "no-store" } else { "no-cache" };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(kept));
        response
    }
}

async fn serve(path: &Path, method: &Method, fields: HeaderMap) -> Result<Response<FileBody>, FileFault> {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.headers_mut() = fields;
    // RFC 9110 section 14.2 allows a server to ignore ranges. Many small ranges would cost more than the file.
    let mut service = ServeFile::new(path).ignore_multi_range_requests(true);
    let response = service.try_call(request).await.map_err(FileFault::of)?;
    Ok(response.map(FileBody))
}

/// Whether an entity tag compares strongly. A date does not: a file may change twice in a second.
fn is_strong(validator: &HeaderValue) -> bool {
    validator.as_bytes().starts_with(b"\"")
}

/// Returns the decoded path below the folder. Returns `None` if a name begins with a dot, or contains a separator or a
/// control character.
fn relative(path: &str) -> Option<PathBuf> {
    let mut relative = PathBuf::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let name: Vec<u8> = decoded(segment.as_bytes()).collect();
        let is_odd = |byte: &u8| matches!(byte, b'/' | b'\\' | 0x7f) || *byte < b' ';
        if name.first() == Some(&b'.') || name.iter().any(is_odd) {
            return None;
        }
        relative.push(OsString::from_vec(name));
    }
    Some(relative)
}

enum Located {
    File(PathBuf),
    Folder,
}

/// Follows all links, and returns a regular file within the folder.
fn locate(root: &Path, relative: &Path, is_folder: bool) -> Result<Located, FileFault> {
    let within = |path: PathBuf| {
        let path = path.canonicalize().map_err(FileFault::of)?;
        let is_within = path.starts_with(root);
        is_within.then_some(path).ok_or(FileFault::Missing("a link leads out of the folder"))
    };
    let path = within(root.join(relative))?;
    let is_dir = path.metadata().map_err(FileFault::of)?.is_dir();
    let path = if is_dir { within(path.join(INDEX))? } else { path };
    // Opening a pipe would wait for its other end.
    if !path.metadata().map_err(FileFault::of)?.is_file() {
        return Err(FileFault::Missing("not a regular file"));
    }
    match (is_dir, is_folder) {
        (true, true) | (false, false) => Ok(Located::File(path)),
        (true, false) => Ok(Located::Folder),
        (false, true) => Err(FileFault::Missing("a file is not a folder")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_dot_at_the_start_or_a_separator_are_refused() {
        for (path, found) in [
            ("/", Some("")),
            ("/a/b.html", Some("a/b.html")),
            ("/a/", Some("a")),
            ("/a%20b", Some("a b")),
            ("/%C3%A9", Some("é")),
            ("/.env", None),
            ("/a/.git/config", None),
            ("/...", None),
            ("/%2Eenv", None),
            ("/a%2Fb", None),
            ("/a%5Cb", None),
            ("/a%00", None),
        ] {
            assert_eq!(relative(path).as_deref(), found.map(Path::new), "{path}");
        }
    }
}
