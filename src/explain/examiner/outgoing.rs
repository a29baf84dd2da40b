//! Builds the request that the upstream would receive.

use super::{Evaluation, Examiner, Sender};
use crate::authenticate::Place;
use crate::explain::describe::{
    balance, duration, protocol, retry_budget, server_of, servers_of, split_by, streams, tls_of,
};
use crate::explain::explanation::{NOT_SHOWN, Responder, UpstreamRequest};
use crate::forward::edits::Edits;
use crate::forward::outgoing::{self, OutgoingHead, X_REQUEST_ID};
use crate::forward::{ConnectionHeaders, Destination, KeyFacts, Mirror, Proofs, Target};
use crate::pipeline::exchange::Exchange;
use crate::pipeline::stages;
use crate::policy::{Credential, Handler, Question};
use crate::route::Head;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Version, header};
use std::cell::RefCell;

impl Examiner<'_> {
    /// Returns the request that the upstream would receive or that the gateway answers itself; `None` if it is refused. The code that
    /// forwards clients' requests writes the head.
    pub(super) fn outgoing(
        &self,
        head: &Head<'_>,
        evaluation: &Evaluation<'_, '_>,
        parts: &Parts,
        sender: &Sender,
        question: &Question,
    ) -> Option<UpstreamRequest> {
        if let Some((_, answer)) = &evaluation.preflight {
            return Some(UpstreamRequest {
                responder: Responder::Preflight,
                upstream: "preflight".to_owned(),
                status: Some(answer.status().as_u16()),
                method: parts.method.to_string(),
                path: head.path.to_string(),
                ..UpstreamRequest::default()
            });
        }
        let (Some(found), Some(permit)) = (&evaluation.found, &evaluation.permit) else { return None };
        let route = &self.policy.routes[*found.entry];
        let compress = route.compression.as_deref().and_then(|compression| {
            let is_head = parts.method == Method::HEAD;
            compression.wish(&parts.headers, is_head, permit.principal().is_some()).coding()
        });
        let types = route.compression.as_deref().filter(|_| compress.is_some());
        let ends_with_token = route.handler.ends_with_token().filter(|_| permit.principal().is_some());
        let answer = UpstreamRequest {
            compress: compress.map(|coding| coding.as_str().to_owned()),
            compress_types: types.iter().flat_map(|known| &known.types).map(ToString::to_string).collect(),
            streams: ends_with_token.map(|ends| streams(ends).to_owned()),
            answer_fields: route.answer_fields().map(ToString::to_string),
            ..UpstreamRequest::default()
        };
        let own = |responder, upstream: &str, servers, path| {
            let (upstream, method) = (upstream.to_owned(), parts.method.to_string());
            Some(UpstreamRequest { responder, upstream, servers, method, path, ..answer.clone() })
        };
        let delivery = match &route.handler {
            Handler::Forward(delivery) => delivery,
            Handler::Files(files) => {
                let folder = vec![files.root.display().to_string()];
                return own(Responder::Files, "files", folder, files.path(&head.path).ok()?);
            }
            Handler::Redirect(redirect) => {
                let sources = &route.credential_policy.sources;
                let target = Target::of_route(head, &parts.uri, None, sources, permit).ok()?;
                let location = redirect.location(&found.params, target.path.query());
                let redirected = own(Responder::Redirect, "redirect", Vec::new(), location)?;
                return Some(UpstreamRequest { status: Some(redirect.status().as_u16()), ..redirected });
            }
            Handler::Answer(_) => {
                return own(Responder::Authority, "authority", Vec::new(), head.path.to_string());
            }
            Handler::Publish(_) | Handler::Receive(..) => {
                return own(Responder::Gateway, "gateway", Vec::new(), head.path.to_string());
            }
        };
        let policy = self.policy;
        let key = KeyFacts {
            principal: permit.principal().map(|principal| &**principal),
            headers: &parts.headers,
            address: sender.caller.address,
        };
        let split = delivery.split.as_deref();
        let delivery = split.and_then(|split| split.choose(key, None)).unwrap_or(delivery);
        let target = Target::of_route(
            head,
            &parts.uri,
            delivery.rewrite.as_deref(),
            &route.credential_policy.sources,
            permit,
        )
        .ok()?;
        let exchange = Exchange::unsent(question.now, sender.caller, sender.relayed.clone());
        let (id, id_header) = (exchange.id, exchange.id_header.clone());
        let connection = ConnectionHeaders { lines: &RefCell::default(), address: question.client };
        // An explanation contains no proofs of identity, because a reader could use a valid proof as a credential.
        let none = Proofs::default();
        let context = exchange.forward_context(policy, route, delivery, connection, &none);
        let (outgoing, _) = outgoing::head(&mut parts.clone(), target, permit, &delivery.audience, &context);
        let OutgoingHead { method, path, mut headers } = outgoing;
        let mut handshake = stages::check_protocol(route, head, Version::HTTP_11).ok().flatten();
        if let Some(handshake) = &mut handshake {
            outgoing::add_handshake(&mut headers, handshake);
        }
        let is_handshake = handshake.is_some();
        if headers.get("traceparent") == Some(&id.traceparent()) {
            headers.insert("traceparent", id_header);
        }
        // The token is masked, because the report of a failed test may have other readers than the token's owner.
        if !matches!(question.credential, Credential::AsSent) && headers.contains_key(header::AUTHORIZATION) {
            let is_bound = permit.place() == Some(Place::Dpop);
            let token = if is_bound { "DPoP <the caller's token>" } else { "Bearer <the caller's token>" };
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(token));
        }
        if permit.principal().is_some() {
            let proven = HeaderValue::from_static("<proof of the identity, made for each request>");
            if let Some(assertor) = &policy.proofs.assertion {
                headers.insert(assertor.header.clone(), proven.clone());
            }
            if let (Some(name), Some(_)) = (&policy.proofs.signature, &delivery.audience.key) {
                headers.insert(name.clone(), proven);
            }
        }
        // A hypothetical request has no body, and handshakes are not copied.
        let is_copied = |mirror: &&Mirror| !is_handshake && mirror.covers(&parts.method, false);
        let mirror = delivery.mirror.as_deref().filter(is_copied);
        let upstream = match &delivery.destination {
            Destination::Upstream(upstream) => Some(&**upstream),
            Destination::Echo => None,
        };
        let silence = |upstream| match is_handshake {
            true => delivery.websocket_silence(),
            false => delivery.answer_silence(upstream),
        };
        // A hypothetical request has no body, so a server that gets it twice sees the same request.
        let is_repeatable = upstream.map(|_| parts.method.is_idempotent());
        let budget = upstream.filter(|_| is_repeatable == Some(true)).map(|upstream| upstream.retry_budget);
        debug_assert!(headers.contains_key(X_REQUEST_ID), "every request that goes out has one");
        let is_removed = |name: &&HeaderName| !headers.contains_key(*name);
        let mut removed: Vec<_> =
            question.parts.headers.keys().filter(is_removed).map(ToString::to_string).collect();
        removed.sort();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        headers.sort();
        let edits = delivery.request_fields.as_deref();
        let secrets = edits.into_iter().flat_map(Edits::secrets);
        let hidden: Vec<_> = secrets.map(|(name, value)| (name.to_string(), text(value))).collect();
        for field in headers.iter_mut().filter(|field| hidden.contains(field)) {
            NOT_SHOWN.clone_into(&mut field.1);
        }
        Some(UpstreamRequest {
            hidden,
            responder: Responder::Upstream,
            upstream: delivery.audience.name.to_string(),
            split: split.map(ToString::to_string),
            split_by: split.map(|split| split_by(split, policy.trust.claims())),
            mirror: mirror.map(|mirror| mirror.upstream.name.to_string()),
            copies: mirror.map(ToString::to_string),
            servers: servers_of(delivery, key),
            tls: tls_of(delivery),
            trailers: delivery
                .request_trailers
                .iter()
                .flat_map(|names| names.iter())
                .map(ToString::to_string)
                .collect(),
            protocol: upstream.map(|upstream| protocol(upstream.protocol).to_owned()),
            balance: upstream.and_then(|upstream| balance(upstream, policy.trust.claims())),
            server: server_of(delivery, key),
            connect_timeout: upstream.map(|upstream| duration(upstream.connect_timeout)),
            timeout: upstream.map(|upstream| duration(delivery.answer_timeout(upstream))),
            silence: upstream.map(silence).map(duration),
            is_repeatable,
            retry_budget: budget.map(retry_budget),
            method: method.to_string(),
            path: path.to_string(),
            headers,
            removed,
            ..answer
        })
    }
}
