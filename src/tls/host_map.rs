//! Maps hosts to values. An exact host takes precedence over a wildcard.

use std::collections::HashMap;

/// The number of labels that a wildcard covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One label, as in certificates (RFC 9525 section 6.3).
    One,
    /// Any number of labels, as in the host patterns of routes.
    Any,
}

/// A map from hosts to values.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    depth: Depth,
    exact: HashMap<Box<str>, T>,
    /// The values of wildcards, by the name after `*.`.
    below: HashMap<Box<str>, T>,
    /// The value of all other hosts, and of connections and requests without a host.
    any: Option<T>,
}

impl<T> HostMap<T> {
    /// Creates an empty map.
    pub fn new(depth: Depth) -> Self {
        Self { depth, exact: HashMap::new(), below: HashMap::new(), any: None }
    }

    /// Sets the value of all hosts without another value. Returns the previous one.
    pub fn insert_any(&mut self, value: T) -> Option<T> {
        self.any.replace(value)
    }

    /// Adds a host, or `*.` and a host. Returns the previous value of the same text.
    pub fn insert(&mut self, host: &str, value: T) -> Option<T> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match host.strip_prefix("*.") {
            Some(parent) => self.below.insert(parent.into(), value),
            None => self.exact.insert(host.into(), value),
        }
    }

    /// Returns the value of a host in lower case without a trailing dot.
    pub fn get(&self, host: Option<&str>) -> Option<&T> {
        host.and_then(|host| self.named(host)).or(self.any.as_ref())
    }

    fn named(&self, host: &str) -> Option<&T> {
        if let Some(value) = self.exact.get(host) {
            return Some(value);
        }
        // The parents, the longest first. A host has at most 128 labels.
        let mut parents = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        match self.depth {
            Depth::One => self.below.get(parents.next()?),
            Depth::Any => parents.find_map(|parent| self.below.get(parent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(depth: Depth) -> HostMap<u8> {
        let mut map = HostMap::new(depth);
        for (host, value) in [("a.test", 1), ("*.a.test", 2), ("*.b.a.test", 3), ("X.B.A.TEST.", 4)] {
            assert_eq!(map.insert(host, value), None);
        }
        map
    }

    #[test]
    fn the_most_specific_host_counts() {
        for (host, one, any) in [
            ("a.test", Some(1), Some(1)),
            ("c.a.test", Some(2), Some(2)),
            ("b.a.test", Some(2), Some(2)),
            ("c.b.a.test", Some(3), Some(3)),
            ("x.b.a.test", Some(4), Some(4)),
            ("d.c.b.a.test", None, Some(3)),
            ("d.c.a.test", None, Some(2)),
            ("test", None, None),
            ("other.test", None, None),
            ("xa.test", None, None),
            (".a.test", Some(2), Some(2)),
            ("", None, None),
        ] {
            assert_eq!(map(Depth::One).get(Some(host)).copied(), one, "{host}");
            assert_eq!(map(Depth::Any).get(Some(host)).copied(), any, "{host}");
        }
        assert_eq!(map(Depth::Any).get(None), None);
    }

    #[test]
    fn the_value_of_any_host_is_that_of_all_others_and_of_none() {
        let mut map = map(Depth::One);
        assert_eq!(map.insert_any(9), None);
        assert_eq!(map.get(None), Some(&9));
        assert_eq!(map.get(Some("other.test")), Some(&9));
        assert_eq!(map.get(Some("a.test")), Some(&1));
        assert_eq!(map.insert("A.test", 5), Some(1));
    }
}
