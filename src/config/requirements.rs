//! The requirements on a caller: the keys that `[[route]]` and `[rule.NAME]` share.

use super::file::{File, RouteSection, RuleSection};
use super::values::{ClaimValues, Fresh};
use std::collections::BTreeMap;

/// The requirements that one table states.
#[derive(Clone, Copy, Debug)]
pub struct Requirements<'f> {
    /// Roles, any one of which is required.
    pub roles: &'f [String],
    /// Roles that are all required.
    pub all_roles: &'f [String],
    /// Roles that the caller must not have.
    pub not_roles: &'f [String],
    /// Scopes that are all required.
    pub scopes: &'f [String],
    /// Scopes, any one of which is required.
    pub any_scopes: &'f [String],
    /// Required claims, as a map from claim path to value.
    pub claims: &'f BTreeMap<String, ClaimValues>,
    /// Issuers whose tokens are accepted; if empty, tokens of all issuers are accepted.
    pub issuers: &'f [String],
    /// Whether the token must come from a login with a password, and the maximum age of that login.
    pub fresh: Fresh,
    /// Whether the token must be bound to a key of its sender.
    pub require_bound: bool,
}

macro_rules! requirements {
    ($($section:ty),*) => {$(
        impl $section {
            /// Returns this table's requirements, without the requirements of rules that it names.
            pub fn requirements(&self) -> Requirements<'_> {
                Requirements {
                    roles: &self.roles,
                    all_roles: &self.all_roles,
                    not_roles: &self.not_roles,
                    scopes: &self.scopes,
                    any_scopes: &self.any_scopes,
                    claims: &self.claims,
                    issuers: &self.issuers,
                    fresh: self.fresh,
                    require_bound: self.require_bound,
                }
            }
        }
    )*};
}

requirements!(RouteSection, RuleSection);

impl<'f> Requirements<'f> {
    /// Returns the lists of names, each with its key.
    pub fn lists(self) -> [(&'static str, &'f [String]); 6] {
        [
            ("roles", self.roles),
            ("all_roles", self.all_roles),
            ("not_roles", self.not_roles),
            ("scopes", self.scopes),
            ("any_scopes", self.any_scopes),
            ("issuers", self.issuers),
        ]
    }
}

impl File {
    /// Returns the requirements of every rule and route, each with the key of its table.
    pub fn requirements(&self) -> impl Iterator<Item = (String, Requirements<'_>)> {
        let rules = self.rule.iter().map(|(name, rule)| (format!("rule.{name}"), rule.requirements()));
        let routes = self.route.iter().enumerate();
        rules.chain(routes.map(|(index, route)| (format!("route[{index}]"), route.requirements())))
    }

    /// Returns the requirements of the rules that a route names, then the requirements in the route's table.
    pub fn requirements_of<'f>(&'f self, route: &'f RouteSection) -> impl Iterator<Item = Requirements<'f>> {
        let named = route.rule.iter().filter_map(|name| self.rule.get(name));
        named.map(RuleSection::requirements).chain([route.requirements()])
    }
}
