use super::*;
use proptest::prelude::*;

fn principal(subject: &str, roles: &[&str]) -> Principal {
    Principal {
        subject: subject.into(),
        roles: roles.iter().map(|role| (*role).into()).collect(),
        claims: Box::new([Some(ClaimValue::Number(7.into())), None]),
        ..Principal::for_tests()
    }
}

fn rendered(names: &IdentityHeaders, principal: &Principal) -> Vec<(String, String)> {
    let headers = names.render(principal).unwrap();
    headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
}

#[test]
fn each_fact_has_its_header_and_what_is_absent_has_none() {
    let names = IdentityHeaders::default();
    let claims = Box::new([
        (HeaderName::from_static("x-auth-tenant"), ClaimId(0)),
        (HeaderName::from_static("x-auth-plan"), ClaimId(1)),
    ]);
    let names = IdentityHeaders { claims, ..names };
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        rendered(&names, &principal("ada", &["a", "", "b"])),
        [
            own("x-auth-subject", "ada"),
            own("x-auth-roles", "a,b"),
            own("x-auth-issuer", "https://id.example.com"),
            own("x-auth-tenant", "7"),
        ]
    );
}

#[test]
fn a_role_cannot_read_as_another() {
    let headers = rendered(
        &IdentityHeaders::default(),
        &principal("a b", &["a,admin", " admin", "admin ", "%61dmin", "ädmin", "x\r\ny"]),
    );
    assert_eq!(headers[0].1, "a b");
    assert_eq!(headers[1].1, "a%2Cadmin,%20admin,admin%20,%2561dmin,%C3%A4dmin,x%0D%0Ay");
}

#[test]
fn a_header_that_is_too_long_makes_none() {
    assert!(IdentityHeaders::default().render(&principal(&"a".repeat(VALUE_MAX), &[])).is_some());
    assert!(IdentityHeaders::default().render(&principal(&"a".repeat(VALUE_MAX + 1), &[])).is_none());
}

#[test]
fn names_that_a_backend_could_read_as_ours_are_reserved() {
    let names =
        IdentityHeaders::new(Some(HeaderName::from_static("remote-user")), None, None, None, Vec::new());
    for (name, reserved) in [
        ("remote-user", true),
        ("remote_user", true),
        ("remote.user", true),
        ("remote-user2", false),
        ("remoteuser", false),
        ("x-auth-anything", true),
        ("x_auth_anything", true),
        ("x!auth~anything", true),
        ("x-author", false),
        ("accept", false),
    ] {
        assert_eq!(names.reserved(&name.parse().unwrap()), reserved, "{name}");
    }
}

#[test]
fn claims_are_sent_as_text_and_values_without_text_are_left_out() {
    let value = |json: serde_json::Value| {
        let mut text = String::new();
        push_claim(&mut text, &ClaimValue::from(&json));
        text
    };
    use serde_json::json;
    for (json, text) in [
        (json!("a,b"), "a%2Cb"),
        (json!(-7), "-7"),
        (json!(1.5), "1.5"),
        (json!(true), "true"),
        (json!(["a,b", 1, "", false, null, ["x"], {"y": 1}]), "a%2Cb,1,false"),
        (json!([]), ""),
        (json!(null), ""),
        (json!({ "a": 1 }), ""),
    ] {
        assert_eq!(value(json.clone()), text, "{json}");
    }
}

#[test]
fn a_field_name_of_a_claim_is_reserved_as_well() {
    let name = HeaderName::from_static("tenant-id");
    let names = IdentityHeaders::new(None, None, None, None, vec![(name, ClaimId(0))]);
    for (name, reserved) in
        [("tenant-id", true), ("Tenant_ID", true), ("tenant-ids", false), ("x_auth-subject", true)]
    {
        assert_eq!(names.reserved(&name.parse().unwrap()), reserved, "{name}");
    }
}

proptest! {
    #[test]
    fn a_reserved_name_is_recognized_in_any_spelling(
        which in 0..6usize,
        separators in "[-_.!#$%&\'*+^`|~]{4}",
        upper in any::<u32>(),
    ) {
        let names = IdentityHeaders::new(
            Some(HeaderName::from_static("remote-user")), None, None, None,
            vec![(HeaderName::from_static("tenant.id"), ClaimId(0))],
        );
        let base = ["remote-user", "tenant.id", "x-auth-", "x-auth-subject", "x-auth-a-b", "x-auth-7"][which];
        let mut separators = separators.chars();
        let spelled: String = base
            .chars()
            .enumerate()
            .map(|(at, c)| match c {
                '-' | '.' => separators.next().unwrap(),
                c if upper >> at & 1 == 1 => c.to_ascii_uppercase(),
                c => c,
            })
            .collect();
        prop_assert!(fold_eq(base, &spelled));
        prop_assert!(names.reserved(&spelled.parse().unwrap()), "{}", spelled);
    }

    #[test]
    fn an_encoded_value_never_holds_a_comma_a_control_or_an_edge_space_and_decodes_to_itself(text in any::<String>()) {
        let mut value = String::new();
        push_encoded(&mut value, &text);
        prop_assert!(value.bytes().all(|b| b == b' ' || (b.is_ascii_graphic() && b != b',')));
        prop_assert!(!value.starts_with(' ') && !value.ends_with(' '));
        let mut decoded = Vec::new();
        let mut bytes = value.bytes();
        while let Some(b) = bytes.next() {
            let mut digit = || char::from(bytes.next().unwrap()).to_digit(16).unwrap();
            decoded.push(if b == b'%' { (digit() * 16 + digit()) as u8 } else { b });
        }
        prop_assert_eq!(decoded, text.into_bytes());
    }
}
