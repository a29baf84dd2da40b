//! The methods that a route covers.

use super::pattern::PatternFault;
use http::Method;
use std::collections::HashSet;
use std::fmt::Write as _;

/// The standard methods, in the order of `Allow`.
const STANDARD: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Other methods in use: registered methods (RFC 9110 section 16.1), and unregistered methods of caches and UPnP.
const OTHERS: [&str; 37] = [
    "ACL",
    "BAN",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "ORDERPATCH",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SUBSCRIBE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Returns the names of all known methods.
pub(crate) fn known_methods() -> impl Iterator<Item = &'static str> {
    const NAMES: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    NAMES.into_iter().chain(OTHERS)
}

/// The maximum number of methods in a list. About forty methods are registered.
const METHODS_MAX: usize = 64;

/// A set of methods. It never contains CONNECT, which would open a tunnel around all checks. It never contains TRACE,
/// whose response would show a client the headers that the gateway adds (RFC 9110 section 9.3.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods(Set);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Set {
    Any,
    /// A list without duplicates. The standard methods are first, in their usual order. The others are in file order.
    Listed(Box<[Method]>),
}

impl Methods {
    /// Returns the set of all methods except CONNECT and TRACE.
    pub const fn any() -> Self {
        Self(Set::Any)
    }

    /// Parses a list of methods. GET implies HEAD (RFC 9110 section 9.3.2). No method implies OPTIONS.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the first invalid method and how to fix it.
    pub fn parse<S: AsRef<str>>(list: &[S]) -> Result<Self, PatternFault> {
        if list.is_empty() {
            return Err(PatternFault::new(
                "an empty list of methods, which would cover no request",
                "name at least one method, or leave `methods` out to cover all",
            ));
        }
        if list.len() > METHODS_MAX {
            return Err(PatternFault::new(
                format!("a list of {} methods", list.len()),
                format!("at most {METHODS_MAX}; leave `methods` out to cover all"),
            ));
        }
        let listed = list.iter().map(|text| parse_method(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let has_get = listed.contains(&Method::GET);
        let mut methods: Vec<Method> = STANDARD
            .into_iter()
            .filter(|method| listed.contains(method) || (has_get && *method == Method::HEAD))
            .collect();
        for method in listed {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        Ok(Self(Set::Listed(methods.into())))
    }

    /// Whether the set contains the method. Methods are case-sensitive (RFC 9110 section 9.1).
    pub(crate) fn contains(&self, method: &Method) -> bool {
        match &self.0 {
            Set::Any => !matches!(*method, Method::CONNECT | Method::TRACE),
            Set::Listed(methods) => methods.contains(method),
        }
    }

    /// Whether the set contains every method except CONNECT and TRACE.
    pub(crate) fn is_any(&self) -> bool {
        match self.0 {
            Set::Any => true,
            Set::Listed(_) => false,
        }
    }

    /// Returns the listed methods. Returns the standard methods if the set contains all methods.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Method> {
        match &self.0 {
            Set::Any => STANDARD.iter(),
            Set::Listed(methods) => methods.iter(),
        }
    }

    /// Returns the union of one or more sets.
    #[must_use]
    pub(crate) fn union<'s>(sets: impl Iterator<Item = &'s Self> + Clone) -> Self {
        if sets.clone().any(Self::is_any) {
            return Self::any();
        }
        let mut seen: HashSet<&Method> = sets.clone().flat_map(Self::iter).collect();
        let mut methods: Vec<Method> = STANDARD.into_iter().filter(|method| seen.remove(method)).collect();
        methods.extend(sets.flat_map(Self::iter).filter(|method| seen.remove(method)).cloned());
        Self(Set::Listed(methods.into()))
    }

    /// Returns the value of `Allow` (RFC 9110 section 10.2.1).
    pub(crate) fn allow_value(&self) -> String {
        let mut value = String::new();
        for method in self.iter() {
            let comma = if value.is_empty() { "" } else { ", " };
            let _ = write!(value, "{comma}{method}");
        }
        value
    }
}

fn parse_method(text: &str) -> Result<Method, PatternFault> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| {
        let names: Vec<_> = text.split([',', ' ', '|']).filter(|name| !name.is_empty()).collect();
        let is_list = names.len() > 1 && names.iter().all(|name| Method::from_bytes(name.as_bytes()).is_ok());
        let hint = if is_list && names.len() <= 10 {
            format!("write a list: {names:?}")
        } else {
            "a method is a token (RFC 9110 section 9.1), such as `GET`".to_owned()
        };
        PatternFault::new(format!("`{text}`, which is not a method"), hint)
    })?;
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "CONNECT" => Err(PatternFault::new(
            "the method CONNECT, which asks for a tunnel past every check",
            "remove it: WebSockets need only GET",
        )),
        "TRACE" => Err(PatternFault::new(
            "the method TRACE, whose answer would show clients the header fields written for the upstream",
            "remove it",
        )),
        _ if upper != text && STANDARD.iter().any(|standard| standard.as_str() == upper) => {
            Err(PatternFault::new(
                format!("the method `{text}`, which no client sends: methods are case-sensitive"),
                format!("write `{upper}`"),
            ))
        }
        _ => Ok(method),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(list: &[&str]) -> Methods {
        Methods::parse(list).unwrap()
    }

    #[test]
    fn get_implies_head_and_nothing_else() {
        let get = methods(&["GET"]);
        assert!(get.contains(&Method::GET) && get.contains(&Method::HEAD));
        assert!(!get.contains(&Method::OPTIONS) && !get.contains(&Method::POST));
        assert!(!methods(&["POST"]).contains(&Method::HEAD));
        assert!(!methods(&["HEAD"]).contains(&Method::GET));
    }

    #[test]
    fn any_method_is_neither_connect_nor_trace() {
        let any = Methods::any();
        let report = Method::from_bytes(b"REPORT").unwrap();
        assert!(any.contains(&Method::DELETE) && any.contains(&report));
        assert!(!any.contains(&Method::CONNECT) && !any.contains(&Method::TRACE));
        assert_eq!(any.allow_value(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }

    #[test]
    fn methods_are_compared_with_their_case() {
        assert!(!methods(&["GET"]).contains(&Method::from_bytes(b"get").unwrap()));
    }

    #[test]
    fn allow_names_each_method_once_in_the_usual_order() {
        assert_eq!(methods(&["REPORT", "DELETE", "GET", "GET"]).allow_value(), "GET, HEAD, DELETE, REPORT");
        let two = [methods(&["PURGE", "DELETE"]), methods(&["GET", "PURGE"])];
        assert_eq!(Methods::union(two.iter()).allow_value(), "GET, HEAD, DELETE, PURGE");
        assert!(Methods::union([&two[0], &Methods::any(), &two[1]].into_iter()).is_any());
    }

    #[test]
    fn a_faulty_method_says_what_would_be_right() {
        for (list, says) in [
            (&["get"][..], "write `GET`"),
            (&["Delete"], "write `DELETE`"),
            (&["TRACE"], "TRACE"),
            (&["trace"], "TRACE"),
            (&["CONNECT"], "WebSockets need only GET"),
            (&["GET POST"], "is not a method"),
            (&[""], "is not a method"),
            (&[], "leave `methods` out"),
        ] {
            let fault = Methods::parse(list).expect_err(says).to_string();
            assert!(fault.contains(says), "{list:?}: {fault}");
        }
    }
}
