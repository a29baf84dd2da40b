//! Handles a request from its head to its response. The order of the stages in `serve` is security-relevant.
//!
//! The futures of rare cases are boxed, so that the future of a request is small: it is moved and kept for each request.

mod access_log;
mod body;
mod claim;
mod cleartext;
mod compressed;
mod csrf_form;
mod endpoints;
pub(crate) mod exchange;
mod files;
mod forward_auth;
mod guide;
mod observe;
pub(crate) mod preflight;
mod progress;
mod record;
mod rejection;
mod shed;
mod signals;
pub(crate) mod stages;
mod tunnel;
pub(crate) mod unreadable;
mod waiting;

pub(crate) use body::Body;

use crate::authenticate::Credentials;
use crate::authenticate::dpop::{DPOP, DPOP_NONCE};
use crate::authority::{Compat, Endpoint};
use crate::authorize::{Permit, Refusal, RequestFacts};
use crate::denial::{Denial, HandshakeFault, Malformed};
use crate::forward::{
    self, Answer, ConnectionHeaders, Inbound, KeyFacts, PermittedRequest, Proof, RequestBody, Target,
};
use crate::limit::{self, LimitKey};
use crate::peer::{Connection, KnownToken, Relayed, Scheme};
use crate::policy::{Handler, Policy, Route};
use crate::respond::compat::CompatRequest;
use crate::respond::cors;
use crate::route::{Head, Slashes};
use crate::tls::ClientCertificate;
use crate::websocket;
use crate::worker::Worker;
use exchange::{Exchange, OriginalRequest, VerdictStyle};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use progress::{Admitted, Progress};
use record::Record;
use rejection::Rejection;
use stages::Routed;
use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

/// Handles a request, and returns the response. The response's body carries the record of the request.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let upgrade = (*request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    if upgrade.is_some()
        && let Some(protocol) = parts.extensions.remove::<hyper::ext::Protocol>()
    {
        websocket::from_http2(&mut parts, protocol.as_str());
    }
    let body = Inbound::new(body, connection.clone(), &parts.headers);
    if shed::is_due(&worker) {
        return Ok(shed::refuse(&worker, &connection, &parts, body));
    }
    let pinned = worker.policy();
    let policy: &Policy = &pinned;
    let (version, method) = (parts.version, parts.method.clone());
    let heard = policy.compat().map(|Compat::FlaskJwtExtended| CompatRequest::of(&parts.headers));
    let origin = if policy.front.reads_origin { cors::origin(&parts.headers).cloned() } else { None };
    // A client whose proofs must have a nonce gets the next one with each response (RFC 9449 section 8.2).
    let dpop = policy.trust.dpop();
    let renews_nonce = dpop.settings().requires_nonce && parts.headers.contains_key(DPOP);
    let mut exchange = Exchange::new(&worker, policy, &connection, &parts);
    let mut record = Record::begin(&worker, pinned.clone(), &connection, &exchange, &parts);
    let mut progress = Progress::default();

    let received = (&mut parts, body);
    let served =
        serve(&worker, policy, &connection, received, &mut exchange, &mut record, &mut progress).await;
    let is_refused = served.is_err();
    let mut closes = served.as_ref().is_err_and(Rejection::is_of_framing);
    let mut response = served.unwrap_or_else(|rejection| {
        rejection.answer(policy, &exchange, heard.as_ref(), &method, &progress, &mut record).map(Body::whole)
    });

    if policy.front.reads_origin {
        let route = progress.route.map(|route| &policy.routes[route]);
        let is_verdict = exchange.verdict.is_some();
        preflight::share(policy, route, is_verdict, is_refused, origin.as_ref(), response.headers_mut());
    }
    let headers = response.headers_mut();
    if renews_nonce {
        headers.insert(DPOP_NONCE, dpop.nonce(exchange.now));
    }
    if exchange.caller.scheme == Scheme::Https
        && let Some(hsts) = &policy.front.hsts
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.of(worker.index()));
    }
    headers.insert(forward::X_REQUEST_ID, exchange.id_header);
    progress.standing.write(headers, worker.index());
    closes |= connection.must_close() || progress.is_body_on_its_way();
    if let Some(tunnel) = response.body_mut().take_tunnel() {
        // Its own `Connection` names the upgrade.
        record.answered(response.status());
        tunnel::begin(&connection, upgrade, tunnel, record);
        return Ok(response);
    }
    if closes && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    record.answered(response.status());
    response.body_mut().carry(record);
    if version == Version::HTTP_2
        && let Some(reader) = connection.streams.current()
    {
        response.body_mut().pace(reader);
    }
    Ok(response)
}

/// Passes a request through all stages, until the first refusal.
async fn serve<'p>(
    worker: &Rc<Worker>,
    policy: &'p Policy,
    connection: &Rc<Connection>,
    (parts, body): (&mut Parts, Option<Inbound>),
    exchange: &mut Exchange,
    record: &mut Record,
    progress: &mut Progress<'p>,
) -> Result<Response<Body>, Rejection> {
    if forward_auth::is_asked(policy, parts.uri.path()) {
        exchange.verdict = Some(VerdictStyle::Statuses);
        record.asks_for_verdict();
    }
    if connection.take_fragment() {
        return Err(Denial::BadRequest(Malformed::Fragment).into());
    }
    // RFC 8555 section 8.3 asks over cleartext HTTP. The answer comes before every rule of the policy.
    if worker.challenges().is_pending()
        && let Some(answer) = cleartext::validation(worker, connection, parts)
    {
        record.is_validation();
        return Ok(answer);
    }
    let is_question = exchange.verdict.is_some() && exchange.caller.by_trusted_proxy;
    let known = &connection.known_host;
    let head = if is_question { policy.front.question(parts) } else { policy.front.head_after(known, parts) };
    let head = head.inspect_err(|denial| record.too_large(denial, &parts.headers))?;
    // Two kinds of requests are not redirected: a request whose client used HTTPS to a trusted proxy, and a trusted
    // proxy's forward-auth request.
    if let Some(port) = connection.redirect
        && exchange.caller.scheme == Scheme::Http
        && !is_question
    {
        return cleartext::to_https(policy, exchange, &head, port, record, progress);
    }
    if let Some(rules) = &policy.front.client_rules {
        let admitted = stages::admit(rules, &connection.peer, connection.tls(), &head, exchange);
        admitted.map_err(|misdirected| {
            record.explained(misdirected.reason().to_owned());
            Denial::Misdirected
        })?;
    }
    if exchange.verdict.is_some() || forward_auth::is_asked(policy, &head.path) {
        exchange.verdict.get_or_insert(VerdictStyle::Statuses);
        record.asks_for_verdict();
        return Box::pin(answer_question(worker, policy, exchange, (&*parts, &head), record, progress)).await;
    }
    if head.method == Method::OPTIONS
        && let Some((route, answer)) = preflight::preflight(policy, &head)
    {
        progress.routed(route, record);
        if answer.status() == StatusCode::FORBIDDEN
            && let Some(detail) = preflight::refusal(policy, route, &head)
        {
            record.explained(detail);
        }
        return Ok(answer.map(Body::whole));
    }
    // The certificate of a trusted proxy is not that of its client.
    let is_relayed = exchange.relayed.as_deref().is_some_and(Relayed::names_client);
    let certificate = connection.certificate().filter(|_| !is_relayed);
    let known_token = &connection.known_token;
    let admitted =
        judge(worker, policy, exchange, (&head, certificate, Some(known_token)), body, record, progress)
            .await?;

    let handshake = stages::check_protocol(admitted.routed.route, &head, parts.version)?;
    if handshake.is_some() && !http_body::Body::is_end_stream(&admitted.body) {
        return Err(Denial::BadRequest(Malformed::Handshake(HandshakeFault::Body)).into());
    }

    match &admitted.routed.route.handler {
        Handler::Forward(delivery) => {
            let Admitted { routed: Routed { route, .. }, permit, body } = admitted;
            let facts = || KeyFacts {
                principal: permit.principal().map(|principal| &**principal),
                headers: head.headers,
                address: exchange.caller.address,
            };
            let delivery = delivery.of_request(facts, exchange.id, record.notes());
            let wish = route.compression.as_deref().map(|compression| {
                let is_head = *head.method == Method::HEAD;
                (compression, compression.wish(head.headers, is_head, permit.principal().is_some()))
            });
            let sources = &route.credential_policy.sources;
            let target = Target::of_route(&head, &parts.uri, delivery.rewrite.as_deref(), sources, &permit)?;
            let headers =
                ConnectionHeaders { lines: &connection.peer_lines, address: connection.peer.address };
            let context = exchange.forward_context(policy, route, delivery, headers, &policy.proofs);
            let meter = progress.meter.as_ref();
            let request = PermittedRequest { permit, parts, target, body, meter, connection, handshake };
            let answer =
                forward::forward(worker.pools(), delivery, request, &context, record.notes()).await?;
            let response = match answer {
                Answer::Whole(response) => response.map(Body::whole),
                Answer::Streamed(response) => response.map(Body::streamed),
                Answer::Multiplexed(response) => response.map(Body::multiplexed),
                Answer::Switched(response) => return Ok(response.map(Body::tunnel)),
            };
            Ok(match wish {
                Some((compression, wish)) => compressed::compress(worker, compression, wish, response),
                None => response,
            })
        }
        Handler::Files(files) => Box::pin(files::answer(worker, files, &head, admitted, record)).await,
        Handler::Answer(endpoint) => {
            let answer = endpoints::answer(worker, policy, exchange, *endpoint, &head, admitted, record);
            Ok(Box::pin(answer).await?.map(Body::whole))
        }
        Handler::Publish(resource) => Ok(resource.answer(head.method).map(Body::whole)),
        Handler::Redirect(redirect) => {
            let Admitted { routed: Routed { route, found }, permit, .. } = admitted;
            let target =
                Target::of_route(&head, &parts.uri, None, &route.credential_policy.sources, &permit)?;
            Ok(redirect.answer(&found.params, target.path.query()).map(Body::whole))
        }
        Handler::Receive(receiver, kind) => {
            let target = (&**receiver, *kind);
            let answer = signals::answer(worker, policy, target, &head, admitted, record);
            Ok(Box::pin(answer).await?.map(Body::whole))
        }
    }
}

/// Answers another proxy, which asks about an original request.
async fn answer_question<'p>(
    worker: &Worker,
    policy: &'p Policy,
    exchange: &mut Exchange,
    (parts, head): (&Parts, &Head<'_>),
    record: &mut Record,
    progress: &mut Progress<'p>,
) -> Result<Response<Body>, Rejection> {
    if let Ok(found) = policy.table.find(head)
        && matches!(policy.routes[*found.entry].handler, Handler::Answer(Endpoint::Verify))
    {
        progress.routed(*found.entry, record);
    }
    let original = forward_auth::original(policy, parts, head, exchange.caller)?;
    exchange.turn_to(&original);
    record.asked_about(&original);
    progress.route = None;
    if let Some(name) = forward_auth::misleading(&parts.headers, &policy.front.pass) {
        record.explained(forward_auth::explain_misleading(name));
        return Err(Denial::BadRequest(Malformed::OriginalOverride).into());
    }
    give_verdict(worker, policy, exchange, original, record, progress).await
}

/// Decides about an original request, and returns the verdict for the proxy.
async fn give_verdict<'p>(
    worker: &Worker,
    policy: &'p Policy,
    exchange: &Exchange,
    original: OriginalRequest,
    record: &mut Record,
    progress: &mut Progress<'p>,
) -> Result<Response<Body>, Rejection> {
    // Slashes are not merged, even if the policy merges them. The other proxy forwards the path unchanged.
    let head = Head::read(&original.parts, policy.front.head_bounds.of_question(), Slashes::Strict)
        .inspect_err(|denial| record.too_large(denial, &original.parts.headers))?;
    forward_auth::is_forwarded_as_judged(original.parts.uri.path(), &head.path)?;
    if let Some(rules) = &policy.front.client_rules
        && rules.get(head.host.as_deref()).is_some_and(|rule| rule.required)
    {
        record.explained(
            "the host requires a client certificate, which another proxy cannot pass on".to_owned(),
        );
        return Err(Denial::Misdirected.into());
    }
    // The connection is that of the other proxy, and so is its certificate.
    let admitted = judge(worker, policy, exchange, (&head, None, None), None, record, progress).await?;
    match &admitted.routed.route.handler {
        Handler::Forward(delivery) => {
            let write_csrf = admitted.routed.route.csrf_field.is_some();
            let root = PathAndQuery::from_static("/");
            let proof = Proof {
                proofs: &policy.proofs,
                audience: &delivery.audience,
                method: head.method,
                // The path and query that the other proxy forwards.
                target: original.parts.uri.path_and_query().unwrap_or(&root),
                now: exchange.now,
            };
            Ok(forward_auth::granted(&admitted.permit, write_csrf, &proof).map(Body::whole))
        }
        Handler::Answer(_)
        | Handler::Files(_)
        | Handler::Publish(_)
        | Handler::Redirect(_)
        | Handler::Receive(..) => {
            record.explained("an endpoint of the gateway: the proxy sends it here without asking".to_owned());
            Err(Denial::NoRoute.into())
        }
    }
}

/// Finds a request's route, runs all checks and returns the permit. This is the only source of permits. For
/// forward-auth, `body` is `None`, because the body stays at the proxy.
async fn judge<'p, 'h>(
    worker: &Worker,
    policy: &'p Policy,
    exchange: &Exchange,
    (head, certificate, known_token): (&'h Head<'_>, Option<&ClientCertificate>, Option<&KnownToken>),
    body: Option<Inbound>,
    record: &mut Record,
    progress: &mut Progress<'p>,
) -> Result<Admitted<'p, 'h>, Rejection> {
    let routed = stages::find(policy, head)
        .inspect_err(|denial| observe::observe(worker, policy, exchange, head, None, None, Some(denial)))?;
    let route = routed.route;
    progress.routed(*routed.found.entry, record);
    // Nothing about the caller matters, and a login that the maintenance interrupts must not use up an attempt.
    if let Some(wait) = route.maintenance {
        return Err(Denial::Maintenance { wait }.into());
    }

    let mut limit_key = LimitKey {
        address: exchange.caller.address,
        headers: head.headers,
        route: &route.name,
        principal: None,
    };
    if !endpoints::is_sent_by_another_site(policy, route, head, exchange) {
        let (limits, standing) = (&route.limits.by_address, &mut progress.standing);
        let admitted = match route.limits.is_exact {
            false => limit::admit(limits, &limit_key, standing),
            true => limit::admit_exactly(limits, &limit_key, standing, policy.link.as_deref()).await,
        };
        admitted.or_else(|denial| unless_shadowed(route, denial, progress, record))?;
    }
    let mut body = match body {
        Some(body) => {
            let (body, meter) = RequestBody::admit(body, policy.front.body_bounds)
                .inspect_err(|denial| record.too_large(denial, head.headers))?;
            record.metered(meter.clone());
            progress.meter = Some(meter);
            body
        }
        None => RequestBody::Empty,
    };
    let csrf_field = match (&route.csrf_field, policy.trust.cookies()) {
        (Some(name), Some(names)) => Box::pin(csrf_form::csrf_field(name, head, names, &mut body)).await?,
        (Some(_) | None, _) => None,
    };
    let csrf_field = csrf_field.as_ref().map(|field| field.as_str());
    let (scheme, relayed) = (exchange.caller.scheme, exchange.relayed.as_deref());
    let proof = Cell::new(None);
    let (used_proof, turns) = (Some(&proof), Some(worker.turns()));
    let shown =
        Credentials { head, scheme, relayed, csrf_field, certificate, known_token, used_proof, turns };
    // The token may have expired while the form arrived, or while Redis was asked about a limit.
    let now = if route.csrf_field.is_some() || route.limits.is_exact { worker.now() } else { exchange.now };
    // This is a separate statement because the token cache must not stay borrowed during a wait.
    let decision = routed.decide(&policy.trust, &shown, now, &mut worker.tokens());
    let decision = match decision {
        Err(refusal) if refusal.pending.is_some() => {
            Box::pin(waiting::decide_after_wait(worker, policy, &routed, &shown, refusal)).await
        }
        decided => decided,
    };
    let decision = match proof.take() {
        Some(proof) => claim::claim(policy, proof, decision).await,
        None => decision,
    };
    let permit = permit(worker, policy, exchange, head, &routed, decision, record)?;
    limit_key.principal = permit.principal().map(Rc::as_ref);
    let (limits, standing) = (&route.limits.by_caller, &mut progress.standing);
    let admitted = match route.limits.is_exact {
        false => limit::admit(limits, &limit_key, standing),
        true => limit::admit_exactly(limits, &limit_key, standing, policy.link.as_deref()).await,
    };
    admitted.or_else(|denial| unless_shadowed(route, denial, progress, record))?;
    Ok(Admitted { routed, permit, body })
}

/// Records the decision, and returns the permit. Returns a rejection for a refusal, unless the route is in shadow mode.
fn permit(
    worker: &Worker,
    policy: &Policy,
    exchange: &Exchange,
    head: &Head<'_>,
    routed: &Routed<'_, '_>,
    decision: Result<Permit, Refusal>,
    record: &mut Record,
) -> Result<Permit, Rejection> {
    let route = routed.route;
    let (principal, denial) = match &decision {
        Ok(permit) => (permit.principal(), None),
        Err(refusal) => (refusal.caller.as_ref().map(|(principal, _)| principal), Some(&refusal.denial)),
    };
    record.identified(principal);
    observe::observe(worker, policy, exchange, head, Some(route), principal.map(Rc::as_ref), denial);
    match decision {
        Ok(permit) => Ok(permit),
        Err(refusal) => {
            let request = RequestFacts { head, params: &routed.found.params, now: exchange.now };
            if let Some(why) = refusal.why(&route.rule, &request) {
                record.explained(why);
            }
            if let Some(mode) = &route.shadow {
                let shadowed = Permit::in_shadow(refusal, mode);
                return Ok(shadowed.record(|refusal| record.shadowed(refusal.denial)));
            }
            let guidance = guide::guide(policy, exchange, route, head, &refusal);
            Err(Rejection::guided(refusal.denial, guidance))
        }
    }
}

/// Returns `Ok` and records the refusal if the route is in shadow mode, otherwise returns the refusal. Shadow mode does
/// not affect limits such as the maximum body size.
fn unless_shadowed(
    route: &Route,
    denial: Denial,
    progress: &Progress<'_>,
    record: &mut Record,
) -> Result<(), Denial> {
    if route.shadow.is_none() {
        return Err(denial);
    }
    record.limited(&progress.standing);
    record.shadowed(denial);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request has such a future, and HTTP/2 moves it twice. The C library copies larger values more slowly.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(handle);
        assert!(size < 4096, "{size} bytes");
    }
}
