//! The documents of the login page: small, readable aloud, in the dark, on a phone and at any size of letters. They load
//! nothing and run nothing; all that came from a request is escaped.

/// The style sheet, byte for byte as it stands in the documents: the policy below names its digest.
///
/// Two sets of colours, each at least 4.5 to 1 against its ground for text (WCAG 2.2, 1.4.3) and 3 to 1 for borders
/// of fields (1.4.11). Lengths are in `rem`, so that larger letters enlarge all.
const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#f3f4f6;--card:#fff;--text:#16191d;--quiet:#565d66;--line:#7d8590;--main:#1d4ed8;\
--on-main:#fff;--bad:#b42318;--bad-ground:#fef3f2;--edge:rgb(0 0 0/.07)}\
@media(prefers-color-scheme:dark){:root{--ground:#0f1216;--card:#191d23;--text:#e9ecf0;--quiet:#a3abb6;--line:#77808c;\
--main:#8ab0ff;--on-main:#0b1220;--bad:#ffa198;--bad-ground:#33191a;--edge:rgb(255 255 255/.09)}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem 1rem;background:var(--ground);\
color:var(--text);font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:24rem;background:var(--card);padding:2rem;border-radius:.75rem;\
box-shadow:0 0 0 1px var(--edge),0 1px 2px rgb(0 0 0/.06),0 .75rem 2rem rgb(0 0 0/.08)}\
svg{display:block;width:2.75rem;height:2.75rem;color:var(--main);margin:0 0 1rem}\
h1{font-size:1.5rem;line-height:1.25;letter-spacing:-.01em;margin:0}\
p{margin:1.25rem 0 0}\
.host{margin:.25rem 0 0;color:var(--quiet);overflow-wrap:anywhere}\
.note{padding:.625rem .875rem;border-radius:.5rem;background:var(--ground)}\
.bad{background:var(--bad-ground);color:var(--bad)}\
form{margin:0}\
label{display:block;font-weight:600;margin:1.25rem 0 .375rem}\
input{display:block;width:100%;font:inherit;color:inherit;background:var(--card);padding:.625rem .75rem;\
border:1px solid var(--line);border-radius:.5rem}\
input[aria-invalid]{border-color:var(--bad)}\
button,.go{display:block;width:100%;margin:1.5rem 0 0;padding:.6875rem 1rem;font:inherit;font-weight:600;\
text-align:center;text-decoration:none;cursor:pointer;border:1px solid var(--main);border-radius:.5rem;\
background:var(--main);color:var(--on-main)}\
button:hover,.go:hover{filter:brightness(1.08)}\
.other{margin-top:.75rem;background:none;color:var(--main)}\
:focus-visible{outline:.1875rem solid var(--main);outline-offset:.125rem}\
@media(max-width:26rem){body{place-items:start stretch;padding:0;background:var(--card)}\
main{max-width:none;box-shadow:none;border-radius:0;padding:1.75rem 1.25rem}}\
@media(forced-colors:active){main{border:1px solid}}";

/// What the documents may do: show their own style, and send their forms home. Nobody may frame them.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-JK2w/BH0QH770CY7JCj4wdDv24zvDrpIVT1psRzapNQ='; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// A gate, half drawn up.
const GATE: &str = "<svg viewBox=\"0 0 40 40\" aria-hidden=\"true\" fill=\"none\" stroke=\"currentColor\" \
    stroke-linecap=\"round\" stroke-linejoin=\"round\"><path stroke-width=\"3.5\" d=\"M4 37V19a16 16 0 0 1 32 0v18\"/>\
    <path stroke-width=\"2\" d=\"M12 6.5V29m8-25.5V32m8-25.5V29M5 15h30M5 22.5h30\"/></svg>\n";

/// Something to say before anything else.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note<'t> {
    /// That something went wrong.
    Bad(&'t str),
    /// That nothing did.
    Plain(&'t str),
}

/// A form to log in with.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoginForm<'t> {
    /// Where it is sent.
    pub(super) action: &'t str,
    /// Host and port, as the browser names them: a person should see where the password goes.
    pub(super) host: &'t str,
    /// Where the person wants to go.
    pub(super) next: Option<&'t str>,
    /// The visit that it belongs to.
    pub(super) visit: &'t str,
    /// The user name that was typed before.
    pub(super) name: &'t str,
    /// Whether what was typed was wrong.
    pub(super) is_wrong: bool,
    pub(super) note: Option<Note<'t>>,
}

impl LoginForm<'_> {
    /// The page.
    pub(super) fn page(&self) -> String {
        let mut page = Page::begin("Log in", None);
        page.push(GATE);
        page.heading("Log in", self.host);
        page.push("<form method=\"post\" action=\"").text(self.action).push("\">\n");
        page.hidden("csrf_token", self.visit);
        if let Some(next) = self.next {
            page.hidden("next", next);
        }
        page.note(self.note);
        let described = if self.note.is_some() { " aria-describedby=\"note\"" } else { "" };
        let invalid = if self.is_wrong { " aria-invalid=\"true\"" } else { "" };
        // Where the person types first.
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

/// For somebody who is logged in: on with it, or out.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoggedIn<'t> {
    pub(super) host: &'t str,
    /// Who.
    pub(super) subject: &'t str,
    /// Where logging out is.
    pub(super) logout: &'t str,
    /// What the form to log out with must show.
    pub(super) csrf: &'t str,
}

impl LoggedIn<'_> {
    /// The page.
    pub(super) fn page(&self) -> String {
        let mut page = Page::begin("Logged in", None);
        page.push(GATE);
        page.heading("You are logged in", self.host);
        page.push("<p class=\"note\">As <strong>").text(self.subject).push("</strong></p>\n");
        page.push("<a class=\"go\" href=\"/\">Continue</a>\n<form method=\"post\" action=\"")
            .text(self.logout);
        page.push("\">\n").hidden("csrf_token", self.csrf);
        page.push("<button class=\"other\">Log out</button>\n</form>\n");
        page.end()
    }
}

/// Leads on to an address of ours, so that the browser comes there from us.
pub(super) fn onward(address: &str) -> String {
    let mut page = Page::begin("One moment", Some(address));
    page.push("<h1>One moment</h1>\n<a class=\"go\" href=\"").text(address).push("\">Continue</a>\n");
    page.end()
}

/// A note and nothing else.
pub(super) fn notice(title: &str, host: &str, note: &str) -> String {
    let mut page = Page::begin(title, None);
    page.push(GATE);
    page.heading(title, host);
    page.note(Some(Note::Bad(note)));
    page.end()
}

/// A document, as far as it is written.
struct Page(String);

impl Page {
    fn begin(title: &str, onward: Option<&str>) -> Self {
        let mut page = Self(String::with_capacity(4096));
        page.push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        page.push("<meta name=\"robots\" content=\"noindex\">\n");
        if let Some(address) = onward {
            page.push("<meta http-equiv=\"refresh\" content=\"0; url=").text(address).push("\">\n");
        }
        page.push("<title>").text(title).push("</title>\n<style>").push(STYLE);
        page.push("</style>\n</head>\n<body>\n<main>\n");
        page
    }

    fn end(mut self) -> String {
        self.push("</main>\n</body>\n</html>\n");
        self.0
    }

    /// What is ours.
    fn push(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// What may come from anybody.
    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // No control character stands in a document, and none that turns the direction of what is read.
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    self.0.push('\u{fffd}')
                }
                character if character.is_control() => self.0.push('\u{fffd}'),
                character => self.0.push(character),
            }
        }
        self
    }

    fn heading(&mut self, title: &str, host: &str) {
        self.push("<h1>").text(title).push("</h1>\n");
        if !host.is_empty() {
            self.push("<p class=\"host\">").text(host).push("</p>\n");
        }
    }

    fn hidden(&mut self, name: &str, value: &str) {
        self.push("<input type=\"hidden\" name=\"").push(name).push("\" value=\"").text(value).push("\">\n");
    }

    fn note(&mut self, note: Option<Note<'_>>) {
        match note {
            Some(Note::Bad(text)) => {
                self.push("<p class=\"note bad\" id=\"note\" role=\"alert\">").text(text).push("</p>\n")
            }
            Some(Note::Plain(text)) => {
                self.push("<p class=\"note\" id=\"note\" role=\"status\">").text(text).push("</p>\n")
            }
            None => self,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
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
    fn the_policy_allows_exactly_the_style_of_each_page() {
        for page in all("x") {
            let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
            let expected = format!("style-src 'sha256-{}';", STANDARD.encode(digest));
            assert!(CONTENT_SECURITY_POLICY.contains(&expected), "{expected}");
            // What a policy without `unsafe-inline` and without a host would block.
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
        fn what_came_from_a_request_never_opens_an_element_or_ends_a_value(text in "[ -~\\x00-\\x1f\u{e9}\u{202e}]{1,40}") {
            // As many marks as with a harmless text: none was added.
            let marks = |page: &str| page.matches(['<', '>', '"', '\'']).count();
            for (page, plain) in all(&text).iter().zip(all("x")) {
                prop_assert_eq!(marks(page), marks(&plain));
                let hidden = page.contains(['\u{202e}', '\r', '\0']);
                prop_assert!(!hidden);
            }
        }
    }
}
