//! Answers requests with the files of a folder.
//!
//! The path of a file is the canonical path that an upstream would receive. No name begins with a dot, no link leads out of
//! the folder, and no file that the policy names is sent. A folder is never listed.

mod disk;
mod guarded;
mod open;

pub(crate) use disk::DiskTasks;
pub(crate) use guarded::Guarded;

use super::faults::{ResponseError, is_own};
use super::head::edits::AnswerFields;
use super::head::rewrite::Rewrite;
use crate::denial::Denial;
use crate::route::Head;
use crate::route::path::decoded;
use bytes::Bytes;
use disk::{DiskFault, OneFile, OpenFile, PIECE, Reading};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use open::Found;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_http::services::ServeDir;

/// The file that stands for its folder.
const INDEX: &str = "index.html";
/// The lists among the fields of a request that decide about the answer.
const LISTS: [HeaderName; 2] = [IF_MATCH, IF_NONE_MATCH];
/// The fields with one value that decide about the answer, beside the range.
const SINGLE: [HeaderName; 2] = [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// The body of an answer with a file. It has the announced length, or ends with an error.
pub(crate) struct FileBody {
    file: Arc<OpenFile>,
    /// The position of the next byte in the file.
    position: u64,
    /// The number of bytes that are missing.
    left: u64,
    reading: Option<Reading>,
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileBody").field("left", &self.left).finish_non_exhaustive()
    }
}

impl FileBody {
    /// Creates the body of an answer with these fields to a request with this method. Returns `None` if the answer has a
    /// part of the file and does not state which one.
    fn of<B>(response: &Response<B>, method: &Method, file: Arc<OpenFile>) -> Option<Self> {
        let field = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let position = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                field(CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()?
            }
            _ => 0,
        };
        let has_body = *method == Method::GET
            && matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let length = field(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let left = length.filter(|_| has_body).unwrap_or(0);
        Some(Self { file, position, left, reading: None })
    }

    /// Returns whether a read is in progress. It may hold one of the places of its folder.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let reading = this.reading.get_or_insert_with(|| {
            let length = usize::try_from(this.left).unwrap_or(PIECE).min(PIECE);
            Box::pin(this.file.clone().read(this.position, length))
        });
        let read = std::task::ready!(reading.as_mut().poll(cx));
        this.reading = None;
        Poll::Ready(Some(match read {
            Ok(bytes) => {
                this.position += bytes.len() as u64;
                this.left -= bytes.len() as u64;
                Ok(Frame::data(bytes.into()))
            }
            Err(error) => Err(ResponseError::File(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The files of a route.
#[derive(Debug)]
pub struct Files {
    /// The folder, as an absolute path without links.
    pub(crate) root: PathBuf,
    /// The device number of the folder's mount.
    pub(crate) mount: u64,
    /// The files and folders that are never sent. `None` until the whole policy is compiled.
    pub(crate) guarded: Option<Arc<Guarded>>,
    pub(crate) rewrite: Option<Box<Rewrite>>,
    pub(crate) answer_fields: Option<Box<AnswerFields>>,
    /// Whether only some callers may see the files, so that shared caches must not keep them.
    pub(crate) is_private: bool,
    /// Whether long answers end with the caller's token.
    pub(crate) ends_with_token: bool,
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
    /// The file system gave no answer in time.
    Late(DiskFault),
    /// The path is refused.
    Path(Denial),
}

impl FileFault {
    pub(crate) fn denial(&self) -> Denial {
        match self {
            Self::Missing(_) => Denial::NotFound,
            Self::Unreadable(error) if is_own(error) => Denial::Overloaded,
            Self::Unreadable(_) => Denial::UpstreamFailed,
            Self::Late(_) => Denial::Overloaded,
            Self::Path(denial) => denial.clone(),
        }
    }

    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename => {
                Self::Missing("there is no such file")
            }
            io::ErrorKind::PermissionDenied => Self::Missing("the gateway may not read the file"),
            _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                Self::Missing("links form a circle, or changed meanwhile")
            }
            _ => Self::Unreadable(error),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => f.write_str(why),
            Self::Unreadable(error) => write!(f, "the file cannot be read: {error}"),
            Self::Late(fault) => fault.fmt(f),
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

    /// Returns the file that a path names, whether or not it exists. `None` if the path names none.
    pub(crate) fn place(&self, path: &str) -> Option<PathBuf> {
        Some(self.root.join(relative(&self.path(path).ok()?)?))
    }

    /// Answers a GET or HEAD request.
    pub(crate) async fn answer(&self, head: &Head<'_>, tasks: &DiskTasks) -> Result<FileAnswer, FileFault> {
        let sent = self.path(&head.path).map_err(FileFault::Path)?;
        let relative = relative(&sent).ok_or(FileFault::Missing("a name begins with a dot or is invalid"))?;
        let guarded = self.guarded.clone();
        let guarded =
            guarded.ok_or_else(|| FileFault::Unreadable(io::Error::other("no list of guarded files")))?;
        let (root, is_folder) = (self.root.clone(), sent.ends_with('/'));
        let tasks = tasks.of(&self.root, self.mount);
        let reading = tasks.clone();
        let work = move || -> Result<_, FileFault> {
            match open::open(&root, &relative, is_folder, &guarded)? {
                Found::File(file, path) => {
                    Ok(Some((OneFile::new(file, reading).map_err(FileFault::of)?, path)))
                }
                Found::Folder => Ok(None),
            }
        };
        let Some((file, path)) = tasks.run(work).await.map_err(FileFault::Late)?? else {
            return Ok(FileAnswer::Redirect(self.to_folder(head)));
        };
        let mut fields = conditions(head.headers);
        if let Some(range) = range(head, file.len()) {
            // The library ignores `If-Range`. A range of another version would damage the client's copy.
            let is_current = match one(head.headers, &IF_RANGE) {
                Some(validator) if is_strong(validator) => {
                    let current = serve(&file, &path, &Method::HEAD, HeaderMap::new()).await?;
                    current.headers().get(ETAG) == Some(validator)
                }
                Some(_) => false,
                None => !head.headers.contains_key(IF_RANGE),
            };
            if is_current {
                fields.insert(RANGE, range.clone());
            }
        }
        let mut response = serve(&file, &path, head.method, fields).await?;
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

/// Returns the fields that decide about the answer, in the form that the library reads: it looks at the first field of
/// each name only.
fn conditions(headers: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for name in LISTS {
        let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        // Several fields are one list (RFC 9110 section 5.3).
        if !lines.is_empty()
            && let Ok(list) = HeaderValue::from_bytes(&lines.join(&b", "[..]))
        {
            fields.insert(name, list);
        }
    }
    for name in SINGLE {
        // A second value makes the field invalid, and an invalid one is ignored (RFC 9110 section 13.1).
        if let Some(value) = one(headers, &name) {
            fields.insert(name, value.clone());
        }
    }
    fields
}

async fn serve(
    file: &OneFile,
    path: &std::path::Path,
    method: &Method,
    fields: HeaderMap,
) -> Result<Response<FileBody>, FileFault> {
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.headers_mut() = fields;
    // RFC 9110 section 14.2 allows a server to ignore ranges. Many small ranges would cost more than the file. The path
    // of the request is `/`, so `path` only determines the media type.
    let mut service = ServeDir::with_backend(path, file.clone()).ignore_multi_range_requests(true);
    let response = service.try_call(request).await.map_err(FileFault::of)?;
    let body = FileBody::of(&response, method, file.open_file());
    let body = body.ok_or_else(|| FileFault::Unreadable(io::Error::other("no range of the file")))?;
    Ok(response.map(|_| body))
}

/// Returns the range that a request asks for. The library would refuse ranges that a server ignores: those in other
/// units, those of other methods than GET, and the last bytes of a shorter file (RFC 9110 sections 14.1 and 14.2). It
/// would answer ranges of an empty file, which has none.
fn range<'h>(head: &Head<'h>, length: u64) -> Option<&'h HeaderValue> {
    let range = one(head.headers, &RANGE).filter(|_| *head.method == Method::GET)?;
    let wanted = range.to_str().ok()?.strip_prefix("bytes=")?;
    let suffix = wanted.strip_prefix('-').and_then(|suffix| suffix.parse::<u64>().ok());
    Some(range).filter(|_| length > 0 && suffix.is_none_or(|suffix| suffix <= length))
}

/// Returns the value of a field that a request has once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
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
            assert_eq!(relative(path), found.map(PathBuf::from), "{path}");
        }
    }
}
