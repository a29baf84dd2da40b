//! Bound tokens in a real browser. A script signs proofs with a key that it cannot extract.

use crate::kit::account::{self, AUTHORITY, PASSWORD, claims};
use crate::kit::browser::{Browser, Scripts};
use crate::kit::upstream::After;
use crate::kit::{Portcullis, Upstream};
use serde_json::{Value, json};

const ROUTES: &str = "
[server]
https = \"127.0.0.1:0\"

[dpop]
nonce = \"required\"

[[route]]
host     = \"shop.test\"
path     = \"/page\"
upstream = \"app\"
access   = \"public\"

[[route]]
host          = \"shop.test\"
path          = \"/orders/{*rest}\"
upstream      = \"app\"
require_bound = true
";

/// The script of an application that signs proofs. Its key stays in IndexedDB and cannot be extracted.
const CLIENT: &str = r#"
const done = arguments[0];
const bytes = data => btoa(String.fromCharCode(...new Uint8Array(data)))
    .replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const text = value => bytes(new TextEncoder().encode(JSON.stringify(value)));
const promised = request => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
});
async function keys() {
    const opening = indexedDB.open('client', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore('keys');
    const database = await promised(opening);
    const known = await promised(database.transaction('keys').objectStore('keys').get('dpop'));
    if (known) return known;
    const made = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']);
    await promised(database.transaction('keys', 'readwrite').objectStore('keys').put(made, 'dpop'));
    return made;
}
let nonce;
async function proof(method, path, token) {
    const pair = await keys();
    const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', pair.publicKey);
    const header = text({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } });
    const claims = { jti: crypto.randomUUID(), htm: method, htu: location.origin + path, nonce,
        iat: Math.floor(Date.now() / 1000) };
    if (token) {
        claims.ath = bytes(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token)));
    }
    const message = header + '.' + text(claims);
    const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, pair.privateKey,
        new TextEncoder().encode(message));
    return message + '.' + bytes(signature);
}
/// Sends a request, and repeats it if the gateway requires a nonce.
async function send(method, path, token, body) {
    for (let attempt = 1; ; attempt += 1) {
        const headers = { DPoP: await proof(method, path, token) };
        if (token) headers.Authorization = 'DPoP ' + token;
        if (body) headers['Content-Type'] = 'application/json';
        const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
        nonce = answer.headers.get('DPoP-Nonce') ?? nonce;
        const problem = answer.headers.get('Content-Type')?.includes('problem');
        const content = await answer.json().catch(() => null);
        if (!problem || content.code !== 'use_dpop_nonce' || attempt === 2) {
            return { status: answer.status, code: problem ? content.code : null, content, attempt };
        }
    }
}
const failed = error => done({ error: String(error) });
"#;

/// Runs the steps of a script after [`CLIENT`], and returns the value that they return.
fn run(browser: &Browser, steps: &str) -> Value {
    let value = browser.script(&format!("{CLIENT}\n(async () => {{ {steps} }})().then(done, failed)"));
    assert_eq!(value["error"], Value::Null, "{value}");
    value
}

#[test]
fn a_script_whose_key_cannot_be_read_logs_in_sends_requests_and_refreshes() {
    let application = Upstream::with(|seen, wire| {
        let subject = seen.header("x-auth-subject").unwrap_or("nobody").to_owned();
        if seen.target == "/page" {
            wire.answer("200 OK", "content-type: text/html\r\n", "<!doctype html><title>Orders</title>");
        } else {
            wire.answer("200 OK", "content-type: application/json\r\n", format!("{{\"by\":\"{subject}\"}}"));
        }
        After::Keep
    });
    let policy = format!("{AUTHORITY}cookies = true\n{}", crate::policy(&application, ROUTES));
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    let browser = Browser::start(Scripts::On);
    let page = format!("https://shop.test:{}/page", gateway.https().port());
    browser.go(&page);

    let login = format!("{{ username: 'ada', password: '{PASSWORD}', deliver: 'body' }}");
    let given = run(
        &browser,
        &format!(
            "const given = await send('POST', '/auth/login', null, {login});
             const read = await send('GET', '/orders/7', given.content.access_token);
             const key = (await keys()).privateKey;
             const exported = await crypto.subtle.exportKey('jwk', key).then(() => 'read', error => error.name);
             return {{ given, read, exported }}"
        ),
    );
    let (login, read) = (&given["given"], &given["read"]);
    assert_eq!(
        (&login["status"], &login["attempt"]),
        (&json!(200), &json!(2)),
        "a nonce was required: {given}"
    );
    assert_eq!(login["content"]["token_type"], "DPoP");
    assert_eq!((&read["status"], &read["content"]["by"]), (&json!(200), &json!("ada")), "{given}");
    assert_eq!(read["attempt"], 1, "each answer carries the next nonce");
    assert_eq!(given["exported"], "InvalidAccessError", "no script can copy the key");
    assert!(browser.cookies().is_empty(), "{:?}", browser.cookies());
    let access = login["content"]["access_token"].as_str().unwrap();
    let refresh = login["content"]["refresh_token"].as_str().unwrap();
    let bound_to = claims(access)["cnf"]["jkt"].clone();
    assert!(bound_to.is_string());

    // After a reload, the page still has the key. A script without the key gets nothing.
    browser.go(&page);
    let renewed = run(
        &browser,
        &format!(
            "const body = {{ refresh_token: '{refresh}' }};
             const bare = await fetch('/auth/refresh', {{ method: 'POST', body: JSON.stringify(body),
                 headers: {{ 'Content-Type': 'application/json' }} }});
             const bearer = await fetch('/orders/7', {{ headers: {{ Authorization: 'Bearer {access}' }} }});
             const renewed = await send('POST', '/auth/refresh', null, body);
             const token = renewed.content.access_token;
             const read = await send('GET', '/orders/8', token);
             const left = await send('POST', '/auth/logout', null,
                 {{ refresh_token: renewed.content.refresh_token }});
             const after = await send('GET', '/orders/9', token);
             return {{ bare: (await bare.json()).code, bearer: (await bearer.json()).code, renewed, read, left, after }}"
        ),
    );
    assert_eq!((&renewed["bare"], &renewed["bearer"]), (&json!("invalid_dpop_proof"), &json!("bound_token")));
    let token = renewed["renewed"]["content"]["access_token"].as_str().unwrap_or_else(|| panic!("{renewed}"));
    assert_eq!(claims(token)["cnf"]["jkt"], bound_to, "the key outlives the page");
    assert_eq!(
        (&renewed["read"]["status"], &renewed["left"]["status"]),
        (&json!(200), &json!(204)),
        "{renewed}"
    );
    assert_eq!(renewed["after"]["code"], "revoked_token", "{renewed}");
}
