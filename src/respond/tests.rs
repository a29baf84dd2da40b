use crate::denial::Denial;

#[test]
fn every_code_has_its_paragraph_in_the_docs_and_every_paragraph_its_code() {
    let text = include_str!("../../docs/refusals.md");
    let documented: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'))
        .map(str::to_owned)
        .collect();
    let codes: Vec<_> = Denial::every().iter().map(|denial| denial.code().to_owned()).collect();
    // The documentation lists the codes in the order of `Denial::every`.
    assert_eq!(documented, codes);
}

#[test]
fn every_paragraph_names_the_status_that_is_sent() {
    let text = include_str!("../../docs/refusals.md");
    for denial in Denial::every() {
        let heading = format!("### `{}`\n\n**{}", denial.code(), denial.status().as_u16());
        assert!(text.contains(&heading), "{heading}");
    }
}
