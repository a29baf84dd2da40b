//! The HTML documents of the login page, in the card layout that all pages of the gateway use.

use crate::respond::page::card::Card;

/// A note above the content of a page.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note<'t> {
    /// A failure.
    Bad(&'t str),
    /// A notice without a failure.
    Plain(&'t str),
}

/// The login form.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoginForm<'t> {
    /// The path to which the form is sent.
    pub(super) action: &'t str,
    /// The host and port that the browser requested, shown on the page.
    pub(super) host: &'t str,
    /// The destination after the login.
    pub(super) next: Option<&'t str>,
    /// The value of the visit, which the form returns as `csrf_token`.
    pub(super) visit: &'t str,
    /// The user name of the previous attempt.
    pub(super) name: &'t str,
    /// Whether the credentials of the previous attempt were wrong.
    pub(super) is_wrong: bool,
    pub(super) note: Option<Note<'t>>,
}

impl LoginForm<'_> {
    /// Returns the HTML of the page.
    pub(super) fn page(&self) -> String {
        let mut page = Card::begin("Log in", None);
        heading(&mut page, "Log in", self.host);
        page.push("<form method=\"post\" action=\"").text(self.action).push("\">\n");
        hidden(&mut page, "csrf_token", self.visit);
        if let Some(next) = self.next {
            hidden(&mut page, "next", next);
        }
        say(&mut page, self.note);
        let described = if self.note.is_some() { " aria-describedby=\"note\"" } else { "" };
        let invalid = if self.is_wrong { " aria-invalid=\"true\"" } else { "" };
        // Focus the first empty field.
        let (name_first, password_first) =
            if self.name.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
        page.push(
            "<label for=\"username\">User name</label>\n<input id=\"username\" name=\"username\" value=\"",
        );
        page.text(self.name)
            .push("\" autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\" required");
        page.push(described).push(invalid).push(name_first).push(">\n");
        page.push("<label for=\"password\">Password</label>\n<input id=\"password\" name=\"password\" type=\"password\"");
        page.push(" autocomplete=\"current-password\" required")
            .push(described)
            .push(invalid)
            .push(password_first);
        page.push(">\n<button>Log in</button>\n</form>\n");
        page.end()
    }
}

/// The page for a logged-in person, with a link to continue and a button to log out.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoggedIn<'t> {
    pub(super) host: &'t str,
    /// The id of the account.
    pub(super) subject: &'t str,
    /// The path of the logout endpoint.
    pub(super) logout: &'t str,
    /// The CSRF token of the logout form.
    pub(super) csrf: &'t str,
}

impl LoggedIn<'_> {
    /// Returns the HTML of the page.
    pub(super) fn page(&self) -> String {
        let mut page = Card::begin("Logged in", None);
        heading(&mut page, "You are logged in", self.host);
        page.push("<p class=\"note\">As <strong>").text(self.subject).push("</strong></p>\n");
        page.push("<a class=\"go\" href=\"/\">Continue</a>\n<form method=\"post\" action=\"")
            .text(self.logout);
        page.push("\">\n");
        hidden(&mut page, "csrf_token", self.csrf);
        page.push("<button class=\"other\">Log out</button>\n</form>\n");
        page.end()
    }
}

/// Returns a page that redirects the browser to another address of the gateway. The browser then treats the next
/// request as same-site.
pub(super) fn onward(address: &str) -> String {
    let mut page = Card::begin("One moment", Some(address));
    page.push("<h1>One moment</h1>\n<a class=\"go\" href=\"").text(address).push("\">Continue</a>\n");
    page.end()
}

/// Returns a page that has only a note.
pub(super) fn notice(title: &str, host: &str, note: &str) -> String {
    let mut page = Card::begin(title, None);
    heading(&mut page, title, host);
    say(&mut page, Some(Note::Bad(note)));
    page.end()
}

fn heading(page: &mut Card, title: &str, host: &str) {
    page.gate().push("<h1>").text(title).push("</h1>\n");
    if !host.is_empty() {
        page.push("<p class=\"host\">").text(host).push("</p>\n");
    }
}

fn hidden(page: &mut Card, name: &str, value: &str) {
    page.push("<input type=\"hidden\" name=\"").push(name).push("\" value=\"").text(value).push("\">\n");
}

fn say(page: &mut Card, note: Option<Note<'_>>) {
    match note {
        Some(Note::Bad(text)) => {
            page.push("<p class=\"note bad\" id=\"note\" role=\"alert\">").text(text).push("</p>\n");
        }
        Some(Note::Plain(text)) => {
            page.push("<p class=\"note\" id=\"note\" role=\"status\">").text(text).push("</p>\n");
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORM: LoginForm<'static> = LoginForm {
        action: "/auth/login",
        host: "shop.example",
        next: None,
        visit: "visit",
        name: "",
        is_wrong: false,
        note: None,
    };

    fn all(text: &str) -> Vec<String> {
        let logged_in = LoggedIn { host: text, subject: text, logout: text, csrf: text };
        let form = LoginForm { action: text, host: text, next: Some(text), visit: text, name: text, ..FORM };
        vec![
            form.page(),
            LoginForm { note: Some(Note::Bad(text)), is_wrong: true, ..form }.page(),
            LoginForm { note: Some(Note::Plain(text)), ..form }.page(),
            logged_in.page(),
            onward(text),
            notice(text, text, text),
        ]
    }

    #[test]
    fn no_page_holds_what_its_policy_blocks() {
        for page in all("x") {
            // The content security policy has no `unsafe-inline` and no host, so it would block these.
            for blocked in
                [" style=", "<script", "javascript:", " on", "http:", "https:", "<img", "<link", "url("]
            {
                assert!(!page.contains(blocked), "{blocked}: {page}");
            }
        }
    }

    #[test]
    fn the_form_says_to_machines_what_it_says_to_people() {
        let page = LoginForm {
            next: Some("/a?b=c&d=e"),
            name: "ada",
            is_wrong: true,
            note: Some(Note::Bad("Wrong.")),
            ..FORM
        }
        .page();
        for part in [
            "<html lang=\"en\">",
            "<title>Log in</title>",
            "<p class=\"host\">shop.example</p>",
            "<p class=\"note bad\" id=\"note\" role=\"alert\">Wrong.</p>",
            "<label for=\"username\">",
            "<input id=\"username\" name=\"username\" value=\"ada\" autocomplete=\"username\"",
            "<label for=\"password\">",
            "type=\"password\" autocomplete=\"current-password\" required aria-describedby=\"note\" \
             aria-invalid=\"true\" autofocus>",
            "<input type=\"hidden\" name=\"next\" value=\"/a?b=c&amp;d=e\">",
            "<input type=\"hidden\" name=\"csrf_token\" value=\"visit\">",
            "<form method=\"post\" action=\"/auth/login\">",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        let plain = FORM.page();
        let plain = plain.split_once("</style>").unwrap().1;
        for absent in ["role=", "aria-describedby", "aria-invalid", "name=\"next\""] {
            assert!(!plain.contains(absent), "{absent}\n{plain}");
        }
        assert_eq!(plain.matches("autofocus").count(), 1);
    }

    proptest! {
        #[test]
        fn text_of_a_request_never_opens_an_element_or_ends_a_value(text in "[ -~\\x00-\\x1f\u{e9}\u{202e}]{1,40}") {
            // The text is escaped if it adds no markup characters to the page.
            let marks = |page: &str| page.matches(['<', '>', '"', '\'']).count();
            for (page, plain) in all(&text).iter().zip(all("x")) {
                prop_assert_eq!(marks(page), marks(&plain));
                let hidden = page.contains(['\u{202e}', '\r', '\0']);
                prop_assert!(!hidden);
            }
        }
    }
}
