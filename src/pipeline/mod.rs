//! The life of a request. Read the order: the order is the policy.

mod access_log;
mod body;
mod csrf_form;
mod endpoints;
mod forward_auth;
mod guide;
mod preflight;
mod record;
pub(crate) mod unreadable;

pub(crate) use body::Body;

use crate::authenticate::Shown;
use crate::authority::{Compat, Endpoint, take_back, take_back_access};
use crate::authorize::Permit;
use crate::decision::decide;
use crate::denial::{Denial, Malformed};
use crate::forward::{
    self, Answer, ConnectionHeaders, ForwardContext, Inbound, Meter, Proof, RequestBody, Target,
};
use crate::limit::{self, Asker, Standing};
use crate::peer::Connection;
use crate::peer::Scheme;
use crate::policy::{Handler, Policy, Route};
use crate::respond::compat::Heard;
use crate::respond::{self, cors};
use crate::route::host::Authority;
use crate::route::{Found, Head, Params, Slashes, upgrade};
use crate::worker::Worker;
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use record::Record;
use std::convert::Infallible;
use std::rc::Rc;

/// The outer half: never fails, always answers, always tells what happened.
///
/// # Errors
/// None.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let policy = worker.policy();
    let snapshot: &Policy = &policy;
    let (version, method) = (parts.version, parts.method.clone());
    let body = Inbound::new(body, connection.clone(), &parts.headers);
    let heard = snapshot.compat().map(|Compat::FlaskJwtExtended| Heard::of(&parts.headers));
    let origin = cors::listed(&parts.headers, snapshot.origins());
    let mut record = Record::begin(&worker, policy.clone(), &connection, &parts);
    if forward_auth::is_asked(snapshot, parts.uri.path()) {
        record.verdict_asked();
    }
    let mut standing = Standing::default();

    let served = serve(&worker, snapshot, &connection, parts, body, &mut record, &mut standing).await;
    let is_refused = served.is_err();
    let mut closes = served.as_ref().is_err_and(may_be_unread);
    let mut response = served.unwrap_or_else(|denial| {
        refusal(snapshot, denial, heard.as_ref(), &method, &standing, &mut record).map(Body::whole)
    });

    if !snapshot.origins().is_empty() && (is_refused || is_for_scripts(snapshot, &record)) {
        cors::share(response.headers_mut(), origin, snapshot.trust.cookies().is_some());
    }
    let headers = response.headers_mut();
    headers.insert(forward::X_REQUEST_ID, record.id_header().clone());
    if record.caller().scheme == Scheme::Https
        && let Some(hsts) = &policy.front.hsts
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    standing.write(headers);
    closes |= connection.closes_next() || record.is_body_on_its_way();
    if closes && version <= Version::HTTP_11 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
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

/// Answers a refused request in the form that its client reads, and notes the refusal.
#[cold]
fn refusal(
    policy: &Policy,
    denial: Denial,
    heard: Option<&Heard>,
    method: &Method,
    standing: &Standing<'_>,
    record: &mut Record,
) -> Response<Bytes> {
    let (login, ways, format) = (record.take_login(), record.take_ways(), record.format());
    let id = record.id_header();
    let mut response = match (record.verdict(), login) {
        (Some(manner), login) => forward_auth::refused(&denial, login, manner, format, id, method, &ways),
        (None, Some(location)) => respond::see_other(location),
        (None, None) => heard
            .and_then(|heard| heard.refuse(&denial, format, &policy.places(record.route()), method))
            .unwrap_or_else(|| respond::refuse_with(&denial, denial.status(), format, id, method, &ways)),
    };
    if let Some(cookies) = policy.terms.as_ref().and_then(|terms| terms.cookies.as_ref()) {
        if record.is_session_over() {
            take_back(response.headers_mut(), cookies);
        } else if record.is_access_over() {
            take_back_access(response.headers_mut(), cookies);
        }
    }
    if matches!(denial, Denial::RateLimited { .. }) {
        record.limited(standing);
    }
    record.refused(denial);
    response
}

/// Whether the answer is one of the gateway's own that scripts of other origins may read. A verdict is read by a proxy.
fn is_for_scripts(policy: &Policy, record: &Record) -> bool {
    let route = record.route().filter(|_| record.verdict().is_none());
    route.is_some_and(|route| policy.routes[route].handler.is_for_scripts())
}

/// The inner half: the first refusal ends it.
async fn serve<'p>(
    worker: &Rc<Worker>,
    policy: &'p Policy,
    connection: &Connection,
    parts: Parts,
    body: Option<Inbound>,
    record: &mut Record,
    standing: &mut Standing<'p>,
) -> Result<Response<Body>, Denial> {
    if connection.take_fragment() {
        return Err(Denial::BadRequest(Malformed::Fragment));
    }
    let is_question = record.verdict().is_some() && record.caller().by_trusted_proxy;
    let head = if is_question { policy.front.question(&parts) } else { policy.front.head(&parts) };
    let head = head.inspect_err(|denial| record.too_large(denial, &parts.headers))?;
    // Of a trusted proxy, its client's scheme counts; and it asks for verdicts over the wire between the two of us.
    if let Some(port) = connection.redirect
        && record.caller().scheme == Scheme::Http
        && !is_question
    {
        return to_https(policy, &head, port, record);
    }
    if record.verdict().is_some() || forward_auth::is_asked(policy, &head.path) {
        record.verdict_asked();
        if let Ok(found) = policy.table.find(&head)
            && matches!(policy.routes[*found.entry].handler, Handler::Answer(Endpoint::Verify))
        {
            record.routed(*found.entry);
        }
        let original = forward_auth::original(policy, &parts, &head, record.caller())?;
        if let Some(name) = forward_auth::misleading(&parts.headers, &policy.front.pass) {
            record.asked_about(&original);
            record.passed_on(name);
            return Err(Denial::BadRequest(Malformed::OriginalOverride));
        }
        return give_verdict(worker, policy, original, record, standing).await;
    }
    if head.method == Method::OPTIONS
        && let Some(answer) = preflight::preflight(policy, &head, record)
    {
        return Ok(answer.map(Body::whole));
    }
    let judged = judge(worker, policy, &head, body, record, standing).await?;
    let Judged { route, found, permit, body, meter } = judged;

    match &route.handler {
        Handler::Forward(delivery) => {
            // Passed on without its `Upgrade` it would be a plain GET, whose answer no WebSocket client understands.
            if upgrade::is_websocket(&parts.headers) {
                return Err(Denial::BadRequest(Malformed::WebSocket));
            }
            let sources = &route.admission.sources;
            let target =
                Target::of_route(&head, &parts.uri, delivery.strip_prefix.as_deref(), sources, &permit);
            let id_header = record.id_header().clone();
            let relayed = record.take_relayed();
            let context = ForwardContext {
                caller: record.caller(),
                relayed: relayed.as_deref(),
                connection: ConnectionHeaders {
                    forwarded_for: &connection.forwarded_for,
                    forwarded: &connection.forwarded,
                    address: connection.peer.address,
                },
                id: record.id(),
                id_header: &id_header,
                identity: policy.trust.identity(),
                forward_token: policy.front.forward_token,
                pass_authorization: delivery.pass_authorization,
                pass: &policy.front.pass,
                cookies: policy.trust.cookies(),
                write_csrf: route.csrf_field.is_some(),
                credentials: &route.admission.sources.named,
                proofs: &policy.proofs,
                now: record.now(),
            };
            let (pools, now) = (worker.pools(), record.now().steady);
            let meter = meter.as_ref();
            let notes = record.notes();
            let answer =
                forward::forward(pools, delivery, permit, parts, target, body, meter, &context, now, notes)
                    .await?;
            Ok(match answer {
                Answer::Whole(response) => response.map(Body::whole),
                Answer::Streamed(response) => response.map(Body::streamed),
            })
        }
        Handler::Answer(endpoint) => {
            let id = found.params.get(0).map(str::to_owned);
            endpoints::answer(worker, policy, *endpoint, permit, &head, id, body, record)
                .await
                .map(|r| r.map(Body::whole))
        }
    }
}

/// Tells another proxy what would become of the request that it holds.
async fn give_verdict<'p>(
    worker: &Rc<Worker>,
    policy: &'p Policy,
    original: forward_auth::Original,
    record: &mut Record,
    standing: &mut Standing<'p>,
) -> Result<Response<Body>, Denial> {
    record.asked_about(&original);
    // Strict whatever the policy says: the slashes that we would merge, the other proxy forwards.
    let head = Head::read(&original.parts, policy.front.head_bounds.of_question(), Slashes::Strict)
        .inspect_err(|denial| record.too_large(denial, &original.parts.headers))?;
    forward_auth::is_forwarded_as_judged(original.parts.uri.path(), &head.path)?;
    let judged = judge(worker, policy, &head, None, record, standing).await?;
    match &judged.route.handler {
        Handler::Forward(delivery) => {
            let write_csrf = judged.route.csrf_field.is_some();
            let root = PathAndQuery::from_static("/");
            let proof = Proof {
                proofs: &policy.proofs,
                audience: &delivery.audience,
                method: head.method,
                // As the other proxy forwards it.
                target: original.parts.uri.path_and_query().unwrap_or(&root),
                now: record.now(),
            };
            Ok(forward_auth::granted(&judged.permit, write_csrf, &proof).map(Body::whole))
        }
        Handler::Answer(_) => Err(record.own_endpoint()),
    }
}

/// A request that may go on, and how far it came.
struct Judged<'p, 'h> {
    route: &'p Route,
    found: Found<'p, 'h, usize>,
    permit: Permit,
    body: RequestBody,
    meter: Option<Rc<Meter>>,
}

/// Finds a request's route and asks all that it asks. The one way to a permit: of what is forwarded, what is answered
/// here, and what another proxy asks about, whose body stays with that proxy.
async fn judge<'p, 'h>(
    worker: &Worker,
    policy: &'p Policy,
    head: &'h Head<'_>,
    body: Option<Inbound>,
    record: &mut Record,
    standing: &mut Standing<'p>,
) -> Result<Judged<'p, 'h>, Denial> {
    let found = match policy.table.find(head) {
        Ok(found) => found,
        Err(denial) => {
            record.decided(head, None, None, Some(&denial));
            return Err(denial);
        }
    };
    let route = &policy.routes[*found.entry];
    record.routed(*found.entry);

    let mut asker = Asker {
        address: record.caller().address,
        headers: head.headers,
        route: &route.name,
        principal: None,
    };
    if !endpoints::is_sent_by_another_site(policy, route, head, record) {
        let admitted = limit::admit(&route.limits.by_address, &asker, standing);
        admitted.or_else(|denial| unless_shadowed(route, denial, standing, record))?;
    }
    let (mut body, meter) = match body {
        Some(body) => {
            let (body, meter) = RequestBody::admit(body, policy.front.body_bounds)
                .inspect_err(|denial| record.too_large(denial, head.headers))?;
            (body, Some(meter))
        }
        None => (RequestBody::Empty, None),
    };
    record.metered(meter.clone());
    let csrf_field = match (&route.csrf_field, policy.trust.cookies()) {
        (Some(name), Some(names)) => csrf_form::csrf_field(name, head, names, &mut body).await?,
        (Some(_) | None, _) => None,
    };
    let csrf_field = csrf_field.as_ref().map(|field| field.as_str());
    let permit = permit(worker, policy, route, head, &found.params, csrf_field, record)?;
    asker.principal = permit.principal().map(Rc::as_ref);
    let admitted = limit::admit(&route.limits.by_caller, &asker, standing);
    admitted.or_else(|denial| unless_shadowed(route, denial, standing, record))?;
    Ok(Judged { route, found, permit, body, meter })
}

/// Decides, and notes what was decided.
fn permit(
    worker: &Worker,
    policy: &Policy,
    route: &Route,
    head: &Head<'_>,
    params: &Params<'_>,
    csrf_field: Option<&str>,
    record: &mut Record,
) -> Result<Permit, Denial> {
    let shown = Shown { head, scheme: record.caller().scheme, relayed: record.relayed(), csrf_field };
    let decision = decide(
        &route.admission,
        &route.rule,
        &policy.trust,
        &shown,
        params,
        record.now(),
        &mut worker.tokens(),
    );
    let (principal, denial) = match &decision {
        Ok(permit) => (permit.principal(), None),
        Err(refusal) => (refusal.caller.as_ref().map(|(principal, _)| principal), Some(&refusal.denial)),
    };
    record.decided(head, Some(route), principal.map(Rc::as_ref), denial);
    match decision {
        Ok(permit) => {
            record.permitted(&permit);
            Ok(permit)
        }
        Err(refusal) => match &route.shadow {
            Some(mode) => Ok(Permit::in_shadow(refusal, mode).record(|refusal| {
                let denial = record.not_permitted(refusal, route, params);
                record.shadowed(denial);
            })),
            None => {
                guide::guide(policy, route, head, &refusal, record);
                Err(record.not_permitted(refusal, route, params))
            }
        },
    }
}

/// On a route in shadow mode, a refusal by the policy is logged and not enforced. Bounds that no policy sets, such as that on
/// the body, are always enforced.
fn unless_shadowed(
    route: &Route,
    denial: Denial,
    standing: &Standing<'_>,
    record: &mut Record,
) -> Result<(), Denial> {
    if route.shadow.is_none() {
        return Err(denial);
    }
    record.limited(standing);
    record.shadowed(denial);
    Ok(())
}

/// Sends a client from the cleartext port to the encrypted one: with 308, so that it keeps its method (RFC 9110
/// section 15.4.9). Refuses a request that carries a credential.
#[cold]
fn to_https(
    policy: &Policy,
    head: &Head<'_>,
    port: u16,
    record: &mut Record,
) -> Result<Response<Body>, Denial> {
    if policy.carries_credential(head) {
        if let Ok(found) = policy.table.find(head) {
            record.routed(*found.entry);
        }
        return Err(Denial::InsecureTransport);
    }
    let asked = record.relayed().and_then(|relayed| relayed.host.as_deref());
    let asked = asked.and_then(|asked| Authority::parse(asked).ok()).map(|authority| authority.host);
    let host = asked.as_deref().or(head.host.as_deref()).ok_or(Denial::BadRequest(Malformed::Host))?;
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("https://{host}{port}{}{query}", head.path);
    let location = HeaderValue::try_from(location).map_err(|_| Denial::BadRequest(Malformed::Target))?;
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Whether what is left of a request must never be read as the next one: its head or the framing of its body is doubtful.
fn may_be_unread(denial: &Denial) -> bool {
    matches!(
        denial,
        Denial::BadRequest(_) | Denial::HeadersTooLarge | Denial::BodyTooLarge | Denial::RequestTimeout
    )
}
