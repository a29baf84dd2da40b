//! Renders the layout of the gateway's pages: one card. It works with a screen reader, in dark mode, on a phone and at
//! any text size. A page loads nothing and runs nothing, and all text from a request is escaped.

/// The style sheet, exactly as it is in the pages: `CONTENT_SECURITY_POLICY` contains its digest.
///
/// It defines light and dark colours. The contrast is at least 4.5 to 1 for text (WCAG 2.2, 1.4.3) and 3 to 1 for the
/// borders of fields (1.4.11). Lengths are in `rem`, so they grow with the text size.
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
.note{padding:.625rem .875rem;border-radius:.5rem;background:var(--ground);overflow-wrap:anywhere}\
.bad{background:var(--bad-ground);color:var(--bad)}\
.why{margin:.5rem 0 0}\
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
footer{margin:1.75rem 0 0;padding:1rem 0 0;border-top:1px solid var(--edge);color:var(--quiet);font-size:.875rem;\
overflow-wrap:anywhere}\
footer p{margin:.25rem 0 0}\
:focus-visible{outline:.1875rem solid var(--main);outline-offset:.125rem}\
@media(max-width:26rem){body{place-items:start stretch;padding:0;background:var(--card)}\
main{max-width:none;box-shadow:none;border-radius:0;padding:1.75rem 1.25rem}}\
@media(forced-colors:active){main{border:1px solid}}";

/// The Content-Security-Policy of all pages. A page may only use its style sheet and send forms to the gateway. No page
/// may be shown in a frame.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
     style-src 'sha256-wvV/MDJuYXsNyKF0xxam6XcEIlEm3ccx3CR/5m4YaQU='; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'";

/// The picture of a half-raised gate, as SVG.
const GATE: &str = "<svg viewBox=\"0 0 40 40\" aria-hidden=\"true\" fill=\"none\" stroke=\"currentColor\" \
    stroke-linecap=\"round\" stroke-linejoin=\"round\"><path stroke-width=\"3.5\" d=\"M4 37V19a16 16 0 0 1 32 0v18\"/>\
    <path stroke-width=\"2\" d=\"M12 6.5V29m8-25.5V32m8-25.5V29M5 15h30M5 22.5h30\"/></svg>\n";

/// A page under construction.
#[derive(Debug)]
pub(crate) struct Card(String);

impl Card {
    /// Starts a page with this title. If `onward` is given, the page redirects to that address.
    pub(crate) fn begin(title: &str, onward: Option<&str>) -> Self {
        let mut card = Self(String::with_capacity(4096));
        card.push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        card.push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        card.push("<meta name=\"robots\" content=\"noindex\">\n");
        if let Some(address) = onward {
            card.push("<meta http-equiv=\"refresh\" content=\"0; url=").text(address).push("\">\n");
        }
        card.push("<title>").text(title).push("</title>\n<style>").push(STYLE);
        card.push("</style>\n</head>\n<body>\n<main>\n");
        card
    }

    pub(crate) fn end(mut self) -> String {
        self.push("</main>\n</body>\n</html>\n");
        self.0
    }

    /// Appends trusted markup.
    pub(crate) fn push(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Appends the picture above the heading.
    pub(crate) fn gate(&mut self) -> &mut Self {
        self.push(GATE)
    }

    /// Appends escaped text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // A page contains no control characters, and no characters that change the text direction.
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    self.0.push('\u{fffd}')
                }
                character if character.is_control() => self.0.push('\u{fffd}'),
                character => self.0.push(character),
            }
        }
        self
    }

    /// Appends a link that looks like a button. Only the first link of a page is emphasised.
    pub(crate) fn link(&mut self, address: &str, words: &str, is_first: bool) -> &mut Self {
        let class = if is_first { "go" } else { "go other" };
        self.push("<a class=\"")
            .push(class)
            .push("\" href=\"")
            .text(address)
            .push("\">")
            .text(words)
            .push("</a>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_policy_allows_exactly_the_style_of_the_pages() {
        let page = Card::begin("x", None).end();
        let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
        let expected = format!("style-src 'sha256-{}';", STANDARD.encode(digest));
        assert!(CONTENT_SECURITY_POLICY.contains(&expected), "{expected}");
        // The browser would block a rule that loads a resource.
        assert!(!style.contains("url(") && !style.contains("@import"));
    }
}
