//! Answers an admitted request with a file.

use super::body::Body;
use super::compressed;
use super::progress::Admitted;
use super::record::Record;
use super::rejection::Rejection;
use super::stages::Routed;
use crate::forward::files::{FileAnswer, Files};
use crate::route::Head;
use crate::worker::Worker;
use bytes::Bytes;
use http::{Method, Response};
use std::rc::Rc;

pub(super) async fn answer(
    worker: &Rc<Worker>,
    files: &Files,
    head: &Head<'_>,
    admitted: Admitted<'_, '_>,
    record: &mut Record,
) -> Result<Response<Body>, Rejection> {
    let Admitted { routed: Routed { route, .. }, permit, body } = admitted;
    drop(body);
    let wish = route.compression.as_deref().map(|compression| {
        let is_head = *head.method == Method::HEAD;
        (compression, compression.wish(head.headers, is_head, permit.principal().is_some()))
    });
    let answer = files.answer(head, worker.disk()).await.map_err(|fault| {
        record.explained(fault.to_string());
        fault.denial()
    })?;
    Ok(match (answer, wish) {
        (FileAnswer::Redirect(response), _) => response.map(|()| Body::whole(Bytes::new())),
        (FileAnswer::File(response), None) => response.map(Body::file),
        (FileAnswer::File(response), Some((compression, wish))) => {
            compressed::compress(worker, compression, wish, response.map(Body::file))
        }
    })
}
