//! Compares the gateway with two JWT libraries: joserfc (Python) and jose (Node).
//!
//! The test changes a token of each algorithm in one or two ways. Both libraries must accept each token that the
//! gateway accepts. [`STRICTER`] lists the changes that only the gateway rejects, and [`LAXER`] the change that only a
//! library rejects. The test fails if an entry does not occur.

use crate::ECHO_ROOT;
use crate::kit::forge::{base64url, now};
use crate::kit::packages::installed;
use crate::kit::signers::{self, Signer};
use crate::kit::{Portcullis, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

const PUBLIC: &str = "https://public.test/";
const SHARED: &str = "https://shared.test/";

type Difference = (&'static str, &'static [&'static str], &'static str);

const BOTH: &[&str] = &["joserfc", "jose"];

/// The changes that only the gateway rejects, the libraries that accept them, and the reason.
const STRICTER: &[Difference] = &[
    ("typ of another kind", BOTH, "a token of another kind with the same key (RFC 8725 section 3.11)"),
    ("typ is a number", &["jose"], "typ is text (RFC 7515 section 4.1.9); jose looks at it only on request"),
    ("crit is empty", &["joserfc"], "crit must not be empty (RFC 7515 section 4.1.11)"),
    ("zip", &["jose"], "compression is not defined for a JWS, and a service behind may know no better"),
    ("aud in a list with a number", &["jose"], "aud is a list of text (RFC 7519 section 4.1.3)"),
    (
        "exp in milliseconds",
        BOTH,
        "the year 58000: the issuer confused the unit, and the token would never expire",
    ),
    ("exp beyond all clocks", BOTH, "no clock reaches it, so the token would never expire"),
    ("issued in the future", &["jose"], "the issuer's clock is wrong, or the token is forged"),
    ("sub is empty", &["jose"], "a caller without a name; jose asks only whether the claim is there"),
    ("sub is a number", &["jose"], "sub is text (RFC 7519 section 4.1.2): 7 and \"7\" may be two accounts"),
    ("sub is a list", &["jose"], "sub is text (RFC 7519 section 4.1.2)"),
    (
        "jti is a number",
        &["jose"],
        "jti is text (RFC 7519 section 4.1.7): it could not be revoked by its jti",
    ),
    (
        "bound to a key",
        BOTH,
        "the sender must prove the key (RFC 7800); the libraries leave that to the application",
    ),
    ("a refresh token", BOTH, "Keycloak's mark in the claims; the libraries know no issuers"),
    ("an ID token", BOTH, "Cognito's mark in the claims"),
    ("a logout token", BOTH, "OpenID Connect Back-Channel Logout section 2.4: for the client alone"),
    ("nested deeply", BOTH, "deeper than any claim, as attacks on parsers are"),
    (
        "a scope with a tab",
        BOTH,
        "a service that splits at white space would see two scopes (RFC 6749 section 3.3)",
    ),
    ("claim twice", BOTH, "another reader may take the other value (RFC 8725 section 2.6)"),
    ("header member twice", BOTH, "another reader may take the other value (RFC 7515 section 4)"),
    ("a byte order mark", BOTH, "JSON in a token has none (RFC 8259 section 8.1)"),
    ("NaN", &["joserfc"], "not JSON; Python's parser accepts it"),
    (
        "a lone surrogate",
        BOTH,
        "not a character: UTF-8 cannot express it, so readers differ in what they make of it",
    ),
    (
        "padded signature",
        &["jose"],
        "base64url without padding (RFC 7515 section 2): one token, one spelling",
    ),
];

/// The changes that only a library rejects, and the reason.
const LAXER: &[Difference] = &[(
    "no kid",
    &["joserfc"],
    "kid is optional (RFC 7515 section 4.1.4): the keys for the token's algorithm are tried, here one; jose does the same",
)];

/// Whether a list has one of these changes for this library.
fn is_listed(list: &[Difference], changes: &[&str], peer: &str) -> bool {
    list.iter().any(|(change, peers, _)| changes.contains(change) && peers.contains(&peer))
}

/// A token to be judged.
struct Case {
    /// The changes of the valid token. Empty for the valid token.
    changes: Vec<&'static str>,
    issuer: &'static str,
    algorithm: &'static str,
    token: String,
}

type Change = (&'static str, &'static str, fn(&Signer) -> Value);

/// Changes of one member of the header (`h`) or the claims (`c`). Null removes the member.
const CHANGES: &[(&str, Change)] = &[
    ("h", ("no kid", "kid", |_| Value::Null)),
    ("h", ("unknown kid", "kid", |_| json!("another"))),
    ("h", ("kid in other case", "kid", |key| json!(key.kid().to_uppercase()))),
    ("h", ("kid is a number", "kid", |_| json!(7))),
    ("h", ("kid is empty", "kid", |_| json!(""))),
    ("h", ("kid of another key", "kid", |key| json!(if key.kid() == "es256" { "rs256" } else { "es256" }))),
    ("h", ("alg none", "alg", |_| json!("none"))),
    ("h", ("alg in lower case", "alg", |key| json!(key.algorithm.to_lowercase()))),
    ("h", ("another alg", "alg", |key| json!(if key.algorithm == "RS256" { "PS256" } else { "RS256" }))),
    ("h", ("HMAC alg", "alg", |key| json!(if key.algorithm == "HS256" { "HS384" } else { "HS256" }))),
    ("h", ("alg of no algorithm", "alg", |_| json!("RS1"))),
    ("h", ("alg is a list", "alg", |key| json!([key.algorithm]))),
    ("h", ("no alg", "alg", |_| Value::Null)),
    ("h", ("no typ", "typ", |_| Value::Null)),
    ("h", ("typ of RFC 9068", "typ", |_| json!("at+jwt"))),
    ("h", ("typ of another kind", "typ", |_| json!("logout+jwt"))),
    ("h", ("typ is a number", "typ", |_| json!(1))),
    ("h", ("crit of a claim", "crit", |_| json!(["exp"]))),
    ("h", ("crit of an extension", "crit", |_| json!(["http://example.com/x"]))),
    ("h", ("crit is empty", "crit", |_| json!([]))),
    ("h", ("jwk of a stranger", "jwk", |_| json!({ "kty": "oct", "k": "AAAA" }))),
    ("h", ("jku of a stranger", "jku", |_| json!("https://evil.test/"))),
    ("h", ("zip", "zip", |_| json!("DEF"))),
    ("h", ("cty", "cty", |_| json!("JWT"))),
    ("c", ("another iss", "iss", |_| json!("https://evil.test/"))),
    ("c", ("iss without slash", "iss", |key| json!(issuer_of(key).trim_end_matches('/')))),
    ("c", ("iss is a list", "iss", |key| json!([issuer_of(key)]))),
    ("c", ("no iss", "iss", |_| Value::Null)),
    ("c", ("another aud", "aud", |_| json!("billing"))),
    ("c", ("aud in other case", "aud", |_| json!("Orders"))),
    ("c", ("aud in a list", "aud", |_| json!(["billing", "orders"]))),
    ("c", ("aud in a list of others", "aud", |_| json!(["billing"]))),
    ("c", ("aud is an empty list", "aud", |_| json!([]))),
    ("c", ("aud in a list with a number", "aud", |_| json!(["orders", 7]))),
    ("c", ("aud is a number", "aud", |_| json!(7))),
    ("c", ("aud is an object", "aud", |_| json!({ "orders": 1 }))),
    ("c", ("no aud", "aud", |_| Value::Null)),
    ("c", ("expired", "exp", |_| json!(now() - 3600))),
    ("c", ("expired within leeway", "exp", |_| json!(now() - 10))),
    ("c", ("exp in fractions", "exp", |_| json!(now() as f64 + 100.5))),
    ("c", ("exp is text", "exp", |_| json!((now() + 300).to_string()))),
    ("c", ("exp in milliseconds", "exp", |_| json!((now() + 300) * 1000))),
    ("c", ("exp beyond all clocks", "exp", |_| json!(1e300))),
    ("c", ("exp before 1970", "exp", |_| json!(-1))),
    ("c", ("exp is true", "exp", |_| json!(true))),
    ("c", ("exp is a list", "exp", |_| json!([now() + 300]))),
    ("c", ("no exp", "exp", |_| Value::Null)),
    ("c", ("not yet valid", "nbf", |_| json!(now() + 3600))),
    ("c", ("not yet valid within leeway", "nbf", |_| json!(now() + 10))),
    ("c", ("valid since yesterday", "nbf", |_| json!(now() - 86_400))),
    ("c", ("nbf is text", "nbf", |_| json!("0"))),
    ("c", ("nbf is false", "nbf", |_| json!(false))),
    ("c", ("issued in the future", "iat", |_| json!(now() + 3600))),
    ("c", ("iat is text", "iat", |_| json!("0"))),
    ("c", ("no iat", "iat", |_| Value::Null)),
    ("c", ("no sub", "sub", |_| Value::Null)),
    ("c", ("sub is empty", "sub", |_| json!(""))),
    ("c", ("sub is a number", "sub", |_| json!(7))),
    ("c", ("sub is a list", "sub", |_| json!(["ada"]))),
    ("c", ("sub with letters of all kinds", "sub", |_| json!("ädä \u{1f980} \u{202e}"))),
    ("c", ("bound to a key", "cnf", |_| json!({ "jkt": "x" }))),
    ("c", ("a refresh token", "typ", |_| json!("Refresh"))),
    ("c", ("an ID token", "token_use", |_| json!("id"))),
    (
        "c",
        ("a logout token", "events", |_| json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
    ),
    ("c", ("jti is a number", "jti", |_| json!(7))),
    ("c", ("nested deeply", "deep", |_| (0..40).fold(json!(1), |inner, _| json!([inner])))),
    ("c", ("a scope with a tab", "scope", |_| json!("a\tb"))),
];

type Rewrite = fn(&Signer, &str, &str) -> String;

/// Changes of the token's text. The functions get the header and the claims as text.
const REWRITES: &[(&str, Rewrite)] = &[
    ("first bit of the signature", |key, header, claims| {
        resigned(key, header, claims, |bytes| bytes[0] ^= 0x80)
    }),
    ("last bit of the signature", |key, header, claims| {
        resigned(key, header, claims, |bytes| *bytes.last_mut().unwrap() ^= 1)
    }),
    ("signature a byte short", |key, header, claims| {
        resigned(key, header, claims, |bytes| bytes.truncate(bytes.len() - 1))
    }),
    ("signature a byte long", |key, header, claims| resigned(key, header, claims, |bytes| bytes.push(0))),
    ("signature with a zero before", |key, header, claims| {
        resigned(key, header, claims, |bytes| bytes.insert(0, 0))
    }),
    ("signature of zeros", |key, header, claims| resigned(key, header, claims, |bytes| bytes.fill(0))),
    ("no signature", |key, header, claims| resigned(key, header, claims, Vec::clear)),
    ("padded signature", |key, header, claims| token(key, header, claims) + "="),
    ("a blank behind", |key, header, claims| token(key, header, claims) + "%20"),
    ("a fourth part", |key, header, claims| token(key, header, claims) + ".e30"),
    ("a part too few", |key, header, claims| {
        token(key, header, claims).rsplit_once('.').unwrap().0.to_owned()
    }),
    ("claims changed after signing", |key, header, claims| {
        let signed = token(key, header, claims);
        let signature = signed.rsplit_once('.').unwrap().1;
        format!("{}.{}.{signature}", base64url(header), base64url(claims.replace("ada", "eve")))
    }),
    ("signature in standard base64", |key, header, claims| {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        format!("{message}.{}", STANDARD_NO_PAD.encode(key.sign(&message)).replace('+', "%2B"))
    }),
    ("claim twice", |key, header, claims| token(key, header, &claims.replacen('{', "{\"sub\":\"root\",", 1))),
    ("header member twice", |key, header, claims| {
        token(key, &header.replacen('{', "{\"alg\":\"none\",", 1), claims)
    }),
    ("claims are a list", |key, header, _| token(key, header, "[]")),
    ("claims are text", |key, header, _| token(key, header, "\"ada\"")),
    ("claims are empty", |key, header, _| token(key, header, "")),
    ("bytes behind the claims", |key, header, claims| token(key, header, &format!("{claims}x"))),
    ("blanks around the claims", |key, header, claims| token(key, header, &format!(" {claims}\n"))),
    ("a byte order mark", |key, header, claims| token(key, header, &format!("\u{feff}{claims}"))),
    ("NaN", |key, header, claims| token(key, header, &claims.replacen('{', "{\"x\":NaN,", 1))),
    ("a comment", |key, header, claims| token(key, header, &claims.replacen('{', "{/**/", 1))),
    ("a comma at the end", |key, header, claims| token(key, header, &claims.replace('}', ",}"))),
    ("an unknown escape", |key, header, claims| token(key, header, &claims.replace("ada", "a\\qa"))),
    ("a lone surrogate", |key, header, claims| token(key, header, &claims.replace("ada", "a\\ud800a"))),
    ("a raw control character", |key, header, claims| token(key, header, &claims.replace("ada", "a\u{1}a"))),
];

fn issuer_of(key: &Signer) -> &'static str {
    if key.algorithm.starts_with("HS") { SHARED } else { PUBLIC }
}

/// Signs a token with this header and these claims.
fn token(key: &Signer, header: &str, claims: &str) -> String {
    resigned(key, header, claims, |_| {})
}

/// Signs a token and changes the signature.
fn resigned(key: &Signer, header: &str, claims: &str, change: impl Fn(&mut Vec<u8>)) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let mut signature = key.sign(&message);
    change(&mut signature);
    format!("{message}.{}", base64url(signature))
}

/// Makes a token with these changes, and then applies the rewrite.
fn case(key: &Signer, changes: &[usize], rewrite: Option<usize>) -> Case {
    let object = |value: Value| value.as_object().unwrap().clone();
    let mut header: Map<String, Value> =
        object(json!({ "alg": key.algorithm, "typ": "JWT", "kid": key.kid() }));
    let mut claims: Map<String, Value> = object(json!({
        "iss": issuer_of(key), "sub": "ada", "aud": "orders", "iat": now(), "exp": now() + 300,
    }));
    let mut names = Vec::new();
    for (part, (name, member, value)) in changes.iter().map(|index| CHANGES[*index]) {
        names.push(name);
        let object = if part == "h" { &mut header } else { &mut claims };
        match value(key) {
            Value::Null => drop(object.remove(member)),
            value => drop(object.insert(member.to_owned(), value)),
        }
    }
    let (header, claims) = (Value::Object(header).to_string(), Value::Object(claims).to_string());
    let token = match rewrite.map(|index| REWRITES[index]) {
        Some((name, rewrite)) => {
            names.push(name);
            rewrite(key, &header, &claims)
        }
        None => token(key, &header, &claims),
    };
    Case { changes: names, issuer: issuer_of(key), algorithm: key.algorithm, token }
}

/// Returns every algorithm with every change, and pairs of changes.
fn cases(keys: &[Signer]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (nth, key) in keys.iter().enumerate() {
        cases.push(case(key, &[], None));
        cases.extend((0..CHANGES.len()).map(|index| case(key, &[index], None)));
        cases.extend((0..REWRITES.len()).map(|index| case(key, &[], Some(index))));
        // Each algorithm tests different pairs.
        for step in 0..CHANGES.len() {
            let other = (step * 7 + nth * 11 + 3) % CHANGES.len();
            cases.push(case(key, &[step, other], None));
            cases.push(case(key, &[other], Some((step + nth) % REWRITES.len())));
        }
    }
    cases
}

/// Runs a script with this input, and returns the lines that it prints.
fn ran(command: &[&str], question: &Value) -> Vec<String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(command[0]);
    let mut input = child.stdin.take().unwrap();
    let text = question.to_string();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn two_other_libraries_accept_every_token_that_the_gateway_accepts() {
    let (scripts, folder) = installed("peers");
    let (public, secrets) = (signers::public(), signers::secrets());
    let set = |keys: &[Signer]| json!({ "keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>() });
    let names = |keys: &[Signer]| keys.iter().map(|key| key.algorithm).collect::<Vec<_>>();
    let issuer = |name: &str, keys: &[Signer], file: &str| {
        format!(
            "[[issuer]]\nissuer = {name:?}\naudience = \"orders\"\nalgorithms = {:?}\njwks = {file:?}\n",
            names(keys)
        )
    };
    let policy =
        issuer(PUBLIC, &public, "public.json") + &issuer(SHARED, &secrets, "shared.json") + ECHO_ROOT;
    let gateway = Portcullis::with(&policy)
        .file("public.json", set(&public).to_string())
        .file("shared.json", set(&secrets).to_string())
        .start();

    let mut cases = cases(&public);
    cases.extend(self::cases(&secrets));
    let question = json!({
        "issuers": {
            PUBLIC: { "jwks": set(&public), "algorithms": names(&public) },
            SHARED: { "jwks": set(&secrets), "algorithms": names(&secrets) },
        },
        "cases": cases.iter().map(|case| json!({ "issuer": case.issuer, "token": case.token })).collect::<Vec<_>>(),
    });
    let python = folder.join("venv/bin/python").display().to_string();
    let (script, module) = (scripts.join("verify.py"), folder.join("verify.mjs"));
    let joserfc = ran(&[&python, &script.display().to_string()], &question);
    let jose = ran(&["node", &module.display().to_string()], &question);
    assert_eq!((joserfc.len(), jose.len()), (cases.len(), cases.len()), "a verdict on each token");

    let (mut accepted, mut faults, mut seen) = (0, Vec::new(), BTreeSet::new());
    for (case, others) in cases.iter().zip(joserfc.iter().zip(&jose)) {
        let answer = Request::get("/").bearer(&case.token).to(gateway.http());
        let ours = if answer.status == 200 { "ok".to_owned() } else { answer.code() };
        accepted += usize::from(ours == "ok");
        for (peer, theirs) in [("joserfc", others.0), ("jose", others.1)] {
            let line = || format!("{} {:?}: gateway {ours}, {peer} {theirs}", case.algorithm, case.changes);
            let list = match (&*ours, &**theirs) {
                ("ok", "ok") => continue,
                ("ok", _) => LAXER,
                (_, "ok") => STRICTER,
                _ => continue,
            };
            if !is_listed(list, &case.changes, peer) {
                faults.push(line());
            } else if let [only] = case.changes[..] {
                // An entry has occurred if its change alone causes the difference.
                seen.insert((only, peer));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
    let all = STRICTER.iter().chain(LAXER);
    let listed: BTreeSet<_> =
        all.flat_map(|(change, peers, _)| peers.iter().map(|peer| (*change, *peer))).collect();
    assert_eq!(seen, listed, "each entry of the lists is a difference that there is");
    assert!(accepted >= 13 * 8, "the good tokens are among {} cases: {accepted}", cases.len());
}

#[test]
fn tokens_of_another_implementation_of_ml_dsa_are_accepted_as_they_were_signed() {
    let (scripts, folder) = installed("peers");
    let python = folder.join("venv/bin/python").display().to_string();
    let script = scripts.join("sign_ml_dsa.py").display().to_string();
    let claims = json!({ "iss": PUBLIC, "sub": "ada", "aud": "orders", "iat": now(), "exp": now() + 300 });
    let made: Value = serde_json::from_str(&ran(&[&python, &script], &claims)[0]).unwrap();
    let policy = format!(
        "[[issuer]]\nissuer = {PUBLIC:?}\naudience = \"orders\"\njwks = \"keys.json\"\n\
         algorithms = [\"ML-DSA-44\", \"ML-DSA-65\", \"ML-DSA-87\"]\n{ECHO_ROOT}"
    );
    let gateway = Portcullis::with(&policy).file("keys.json", made.to_string()).start();
    let tokens: Vec<&str> =
        made["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 3);
    let ask = |token: &str| Request::get("/").bearer(token).to(gateway.http());
    for token in tokens {
        ask(token).is(200);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        ask(&format!("{message}.{other}{}", &signature[1..])).is_refusal(401, "bad_signature");
        ask(&format!("{message}.{}", &signature[4..])).is_refusal(401, "malformed_token");
    }
}
