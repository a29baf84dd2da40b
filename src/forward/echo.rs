//! The built-in upstream. It responds with a description of the request as an upstream would receive it.

use super::body::meter::BodyError;
use super::body::request_body::RequestBody;
use super::head::outgoing::OutgoingHead;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

/// Reads the body to its end, and returns the request's method, target, fields and body size as JSON.
///
/// # Errors
/// Returns the error if the body cannot be read to its end.
pub(super) async fn answer(head: &OutgoingHead, mut body: RequestBody) -> Result<Response<Bytes>, BodyError> {
    let OutgoingHead { method, path, headers } = head;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame?.data_ref().map_or(0, Bytes::len);
    }
    let mut fields = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into());
        let mut values: Vec<Value> = values.collect();
        let value = if values.len() == 1 { values.remove(0) } else { values.into() };
        fields.insert(name.as_str().to_owned(), value);
    }
    let description = json!({
        "method": method.as_str(),
        "target": path.as_str(),
        "headers": fields,
        "body_bytes": bytes,
    });
    let mut text = format!("{description:#}\n");
    if *method == Method::HEAD {
        text.clear();
    }
    let mut response = Response::new(Bytes::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
