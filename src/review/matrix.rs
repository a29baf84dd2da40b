//! Builds the access matrix: the roles and other grants that each route and method requires.
//!
//! Each cell is the verdict on a sample request from a caller with one role. If the caller is rejected, callers with
//! exactly the required grants are tried. A cell never shows more access than the gateway allows.

use super::sample::{self, Caller, Grants, Sample};
use crate::authorize::Check;
use crate::clock::Now;
use crate::explain::{Examiner, Outcome, Verdict};
use crate::policy::{Policy, Question};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// The maximum number of role columns. A wider table is unreadable.
const ROLES_MAX: usize = 200;
/// The maximum number of cells, which take about a second to compute.
const CELLS_MAX: usize = 100_000;
/// The maximum number of alternatives in a cell.
const WAYS_MAX: usize = 4;

/// The access matrix.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Matrix {
    /// The columns, one for each kind of caller.
    pub columns: Vec<Column>,
    /// The rows in matching order. Methods with equal results share a row. The endpoints of the authority are last.
    pub rows: Vec<Row>,
    /// The omitted roles and rows.
    pub left_out: Omitted,
}

/// The caller of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "caller", rename_all = "snake_case")]
pub(crate) enum Column {
    /// A caller without a token.
    Nobody,
    /// A caller with a valid token without grants.
    AnyCaller,
    /// A caller with a valid token that has only this role.
    Role {
        /// The name of the role.
        role: String,
    },
}

/// The results of a route for methods with equal results.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The name of the route.
    pub route: String,
    /// The host and path pattern, as written in the policy.
    pub covers: String,
    /// The methods. Empty if the row applies to all methods.
    pub methods: Vec<String>,
    /// The sample request.
    pub request: String,
    /// The name of a more specific route that covers the sample request instead.
    pub covered_by: Option<String>,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// Whether a caller may use a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Cell {
    /// The caller is allowed.
    Yes,
    /// The rule rejects the caller, but the route is in shadow mode and forwards the request.
    Shadow {
        /// The denial code.
        code: &'static str,
    },
    /// The caller is allowed with one of these additional grants.
    With {
        /// The alternatives, each with all grants that the caller needs.
        needs: Vec<String>,
    },
    /// The caller is rejected, regardless of other grants.
    No {
        /// The denial code.
        code: &'static str,
    },
}

/// The omitted roles and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Omitted {
    /// The number of omitted roles, which are last in alphabetical order.
    pub roles: usize,
    /// The number of omitted groups of rows, which are last in matching order.
    pub rows: usize,
}

/// Builds the matrix of a policy.
pub(crate) fn matrix(policy: &Policy) -> Matrix {
    bounded(policy, ROLES_MAX, CELLS_MAX)
}

fn bounded(policy: &Policy, roles_max: usize, cells_max: usize) -> Matrix {
    let mut roles = roles(policy);
    let mut left_out = Omitted { roles: roles.len().saturating_sub(roles_max), rows: 0 };
    roles.truncate(roles_max);
    let mut columns = vec![Column::Nobody, Column::AnyCaller];
    columns.extend(roles.into_iter().map(|role| Column::Role { role }));
    let asking = MatrixBuilder { policy, examiner: Examiner::new(policy), now: Now::read() };
    let groups = groups(policy);
    let rows_max = (cells_max / columns.len()).max(1);
    left_out.rows = groups.len().saturating_sub(rows_max);
    let rows = groups.into_iter().take(rows_max).flat_map(|group| asking.rows(&group, &columns)).collect();
    Matrix { columns, rows, left_out }
}

/// Returns the roles in the rules of a policy, in alphabetical order.
fn roles(policy: &Policy) -> Vec<String> {
    let mut roles = BTreeSet::new();
    for check in policy.routes.iter().flat_map(|route| route.rule.checks()) {
        match check {
            Check::Roles(named) | Check::AllRoles(named) | Check::NotRoles(named) => {
                roles.extend(named.iter().map(ToString::to_string))
            }
            Check::Scopes { .. }
            | Check::AnyScope { .. }
            | Check::Issuers(_)
            | Check::Claim { .. }
            | Check::Fresh { .. }
            | Check::Bound => {}
        }
    }
    roles.into_iter().collect()
}

/// Returns the samples in matching order. Samples of a group differ only in the method.
fn groups(policy: &Policy) -> Vec<Vec<Sample>> {
    let mut groups: Vec<Vec<Sample>> = Vec::new();
    for sample in sample::requests(policy) {
        // An endpoint of the authority has a sample for each host. Only the sample without a host is kept.
        if is_endpoint(policy, &sample) && !sample.covers.starts_with('/') {
            continue;
        }
        match groups.last_mut() {
            Some(group) if group[0].route == sample.route && group[0].url == sample.url => group.push(sample),
            Some(_) | None => groups.push(vec![sample]),
        }
    }
    groups.sort_by(|one, other| {
        let key = |group: &[Sample]| is_endpoint(policy, &group[0]);
        let matcher = |group: &[Sample]| &policy.routes[group[0].route].matcher;
        key(one).cmp(&key(other)).then_with(|| matcher(one).order(matcher(other)))
    });
    groups
}

fn is_endpoint(policy: &Policy, sample: &Sample) -> bool {
    policy.routes[sample.route].handler.is_own()
}

struct MatrixBuilder<'p> {
    policy: &'p Policy,
    examiner: Examiner<'p>,
    now: Now,
}

impl MatrixBuilder<'_> {
    /// Returns one row for each group of methods with equal verdicts. All samples of `group` have the same route and
    /// URL.
    fn rows(&self, group: &[Sample], columns: &[Column]) -> Vec<Row> {
        let mut met: Vec<(Verdict, Question, Vec<&Sample>)> = Vec::new();
        for sample in group {
            // The URL of a sample is always valid.
            let Some(question) = sample.question() else { continue };
            let question = question.at(self.now);
            let verdict = self.examiner.verdict(&question);
            match met.iter_mut().find(|(known, ..)| *known == verdict) {
                Some((.., samples)) => samples.push(sample),
                None => met.push((verdict, question, vec![sample])),
            }
        }
        let is_one = met.len() == 1;
        met.into_iter().filter_map(|met| self.row(met, is_one, columns)).collect()
    }

    fn row(
        &self,
        (verdict, question, samples): (Verdict, Question, Vec<&Sample>),
        is_one: bool,
        columns: &[Column],
    ) -> Option<Row> {
        let first = samples.first()?;
        let route = &self.policy.routes[first.route];
        let by =
            verdict.route.filter(|by| *by != first.route).map(|by| self.policy.routes[by].name.to_string());
        let is_any = is_one && route.matcher.methods.is_any();
        let methods = samples.iter().map(|sample| sample.method.to_string()).filter(|_| !is_any);
        Some(Row {
            route: route.name.to_string(),
            covers: first.covers.clone(),
            methods: methods.collect(),
            request: format!("{} {}", first.method, first.url),
            covered_by: by,
            cells: columns.iter().map(|column| self.cell(column, &verdict, &question)).collect(),
        })
    }

    fn cell(&self, column: &Column, nobody: &Verdict, question: &Question) -> Cell {
        let mut base = Grants::default();
        let verdict = match column {
            Column::Nobody => nobody.clone(),
            Column::AnyCaller => self.ask(&base, question),
            Column::Role { role } => {
                base.roles.insert(role.clone());
                self.ask(&base, question)
            }
        };
        let code = match &verdict.outcome {
            Outcome::Passed => return Cell::Yes,
            Outcome::Redirected => Outcome::Redirected.word(),
            Outcome::Refused(denial) => denial.code(),
        };
        if verdict.shadow {
            return Cell::Shadow { code };
        }
        let Some(route) = verdict.route.filter(|_| *column != Column::Nobody) else {
            return Cell::No { code };
        };
        let ways = sample::minimal_grants(self.policy, &self.policy.routes[route]);
        // Skips grants that have only roles of other columns. Those columns show the grants.
        let mut ways =
            ways.into_iter().filter(|way| way.roles.is_empty() || !way.roles.is_disjoint(&base.roles));
        let needs: Vec<String> = ways
            .by_ref()
            .filter_map(|way| {
                let mut whole = way.clone();
                whole.roles.extend(base.roles.iter().cloned());
                let missing = Grants { roles: way.roles.difference(&base.roles).cloned().collect(), ..way };
                self.ask(&whole, question).outcome.passes().then(|| missing.to_string())
            })
            .take(WAYS_MAX)
            .collect();
        if needs.is_empty() { Cell::No { code } } else { Cell::With { needs } }
    }

    fn ask(&self, grants: &Grants, question: &Question) -> Verdict {
        let caller = Caller::WithToken(grants.clone());
        self.examiner.verdict(&caller.question(self.policy, question.clone()))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("(no token)"),
            Self::AnyCaller => f.write_str("(any token)"),
            Self::Role { role } => f.write_str(role),
        }
    }
}

impl fmt::Display for Cell {
    /// Formats the cell: `yes`, `no`, `with scope a`, or `shadow`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::Shadow { .. } => f.write_str("shadow"),
            Self::With { needs } => write!(f, "with {}", needs.join(" or ")),
            Self::No { .. } => f.write_str("no"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::sample::tests::policy;
    use proptest::prelude::*;

    fn route(path: &str, rest: &str) -> String {
        format!("[[route]]\nname = \"{path}\"\npath = \"{path}\"\nupstream = \"echo\"\n{rest}\n")
    }

    /// Formats each row as path, methods and cells.
    fn lines(matrix: &Matrix) -> Vec<String> {
        let line = |row: &Row| {
            let cells: Vec<_> = row.cells.iter().map(ToString::to_string).collect();
            format!("{} {}: {}", row.covers, row.methods.join(","), cells.join(" | "))
        };
        matrix.rows.iter().map(line).collect()
    }

    #[test]
    fn each_route_says_who_gets_through_and_what_they_need_beside() {
        let routes = [
            ("/open/{*rest}", "access = \"public\""),
            ("/me", ""),
            ("/guests", "access = \"optional\""),
            (
                "/orders/{id}",
                "methods = [\"GET\"]\nroles = [\"clerk\", \"admin\"]\nscopes = [\"orders:read\"]",
            ),
            ("/orders/{name}", "methods = [\"DELETE\"]\nroles = [\"admin\"]"),
            ("/both", "roles = [\"clerk\", \"admin\"]\nall_roles = [\"staff\"]"),
            ("/t/{tenant}", "claims = { tenant = \"{tenant}\" }"),
            ("/not", "not_roles = [\"clerk\"]"),
            ("/plan", "claims = { plan = [\"gold\", \"silver\"] }\nany_scopes = [\"p\"]"),
            ("/host", "host = \"*.example.com\"\nclaims = { tenant = \"{host:*}\" }\nroles = [\"clerk\"]"),
            ("/header", "claims = { tenant = \"{header:X-Tenant}\" }\nroles = [\"clerk\"]"),
            ("/trial", "roles = [\"admin\"]\nmode = \"shadow\""),
        ];
        let matrix = matrix(&policy(&routes.map(|(path, rest)| route(path, rest)).concat()));
        let columns: Vec<_> = matrix.columns.iter().map(ToString::to_string).collect();
        assert_eq!(columns, ["(no token)", "(any token)", "admin", "clerk", "staff"]);
        let plan = "with scope p and claim plan = \"gold\" or scope p and claim plan = \"silver\"";
        assert_eq!(
            lines(&matrix),
            [
                "*.example.com/host : no | no | no | with claim tenant as in the host | no",
                "/both : no | no | with role staff | with role staff | with role admin or role clerk",
                "/guests : yes | yes | yes | yes | yes",
                "/header : no | no | no | with claim tenant as in the header x-tenant | no",
                "/me : no | yes | yes | yes | yes",
                "/not : no | yes | yes | no | yes",
                "/open/{*rest} : yes | yes | yes | yes | yes",
                "/orders/{name} DELETE: no | no | yes | no | no",
                "/orders/{id} GET,HEAD: no | no | with scope orders:read | with scope orders:read | no",
                &format!("/plan : no | {plan} | {plan} | {plan} | {plan}"),
                "/t/{tenant} : no | with claim tenant as in the path | with claim tenant as in the path | \
                 with claim tenant as in the path | with claim tenant as in the path",
                "/trial : shadow | shadow | yes | shadow | shadow",
            ]
        );
        assert_eq!(matrix.left_out, Omitted::default());
        assert_eq!(matrix.rows[2].request, "GET https://sample.invalid/guests");
    }

    #[test]
    fn paths_of_a_more_specific_route_are_attributed_to_it() {
        let routes =
            [route("/{a}", ""), route("/sample", "access = \"public\""), route("/another-sample", "")];
        let matrix = matrix(&policy(&routes.concat()));
        let row = matrix.rows.iter().find(|row| row.covers == "/{a}").unwrap();
        assert_eq!(row.covered_by.as_deref(), Some("/sample"));
        assert_eq!(row.cells[0], Cell::Yes, "what becomes of the request, not what the route asks");
        assert!(matrix.rows.iter().filter(|row| row.covers != "/{a}").all(|row| row.covered_by.is_none()));
    }

    #[test]
    fn the_authoritys_endpoints_stand_at_the_end_and_once() {
        let text = "[authority]\nissuer = \"https://localhost:8443\"\naudience = [\"p\"]\n";
        let hosts = route("/x", "host = \"api.example.com\"") + &route("/z", "");
        let matrix = matrix(&policy(&(text.to_owned() + &hosts)));
        let names: Vec<_> = matrix.rows.iter().map(|row| &*row.route).collect();
        assert_eq!(names[..2], ["/x", "/z"]);
        assert!(names[2..].iter().all(|name| name.starts_with("auth:")), "{names:?}");
        assert_eq!(names.iter().filter(|name| **name == "auth:login").count(), 1, "{names:?}");
    }

    #[test]
    fn omitted_roles_and_rows_are_counted() {
        let routes: String =
            (0..20).map(|nth| route(&format!("/r{nth}"), &format!("roles = [\"r{nth:02}\"]"))).collect();
        let policy = policy(&routes);
        let matrix = bounded(&policy, 3, 50);
        assert_eq!((matrix.columns.len(), matrix.rows.len()), (5, 10));
        assert_eq!(matrix.left_out, Omitted { roles: 17, rows: 10 });
        assert_eq!(bounded(&policy, 20, 440).left_out, Omitted::default());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_cell_never_says_yes_to_whom_the_rule_refuses(
            any in proptest::collection::btree_set("[abc]", 0..3),
            all in proptest::collection::btree_set("[abc]", 0..3),
            scoped in any::<bool>(),
        ) {
            let list = |names: &BTreeSet<String>| format!("{names:?}").replace(['{', '}'], "").to_owned();
            let scopes = if scoped { "scopes = [\"s\"]" } else { "" };
            let rest = format!("roles = [{}]\nall_roles = [{}]\n{scopes}", list(&any), list(&all));
            let matrix = matrix(&policy(&route("/x", &rest)));
            for (column, cell) in matrix.columns.iter().zip(&matrix.rows[0].cells) {
                let role = match column {
                    Column::Nobody => { prop_assert_eq!(cell, &Cell::No { code: "missing_token" }); continue; }
                    Column::AnyCaller => None,
                    Column::Role { role } => Some(role),
                };
                let has_role = (any.is_empty() || role.is_some_and(|role| any.contains(role))) && all.iter().all(|one| Some(one) == role);
                prop_assert_eq!(*cell == Cell::Yes, has_role && !scoped, "{:?} {:?}", column, cell);
                // If the rule names roles, only a caller with one of these roles can be allowed. Otherwise, every
                // caller can be allowed.
                let is_asked_for = role.is_some_and(|role| any.contains(role) || all.contains(role)) || any.is_empty() && all.is_empty();
                let is_no = matches!(cell, Cell::No { .. });
                prop_assert_eq!(is_no, !is_asked_for, "{:?} {:?}", column, cell);
            }
        }
    }
}
