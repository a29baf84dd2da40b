//! Reads a new password from a terminal or standard input.

use super::Failure;
use crate::authority::{PASSWORD_BYTES_MAX, UserName, prepare_new_password};
use std::io::{IsTerminal, Read};
use zeroize::Zeroizing;

/// Reads a new password for the account `name`, once from standard input or twice from the terminal.
pub(super) fn read(from_stdin: bool, name: &UserName) -> Result<Zeroizing<String>, Failure> {
    let typed = if from_stdin { from_input(std::io::stdin().lock())? } else { from_terminal()? };
    let password = prepare_new_password(&typed).map_err(|fault| fault.to_string())?;
    check_against_name(&password, name.as_str())?;
    Ok(password)
}

/// Rejects a password that is the user name, because attackers try it first.
pub(super) fn check_against_name(password: &str, name: &str) -> Result<(), String> {
    let spelled = |text: &str| UserName::parse(text).is_ok_and(|other| other.as_str() == name);
    if spelled(password) { Err("the password is the user name".to_owned()) } else { Ok(()) }
}

fn from_input(input: impl Read) -> Result<Zeroizing<String>, Failure> {
    // The buffer has room for the longest password, its line break, and one more byte to detect a longer password. It
    // must never grow: growth would leave copies of the password in freed memory.
    let most = PASSWORD_BYTES_MAX * 3 + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    let read = input.take(most as u64).read_to_end(&mut bytes);
    read.map_err(|error| format!("standard input: {error}"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "the password is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(Zeroizing::new(line.to_owned()))
}

fn from_terminal() -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        let why = "there is no terminal to ask for a password on; pass --password-stdin and write it to standard input";
        return Err(Failure::Usage(why.to_owned()));
    }
    let ask = |prompt: &str| {
        let typed = rpassword::prompt_password(prompt).map_err(|error| format!("the terminal: {error}"))?;
        Ok::<_, String>(Zeroizing::new(typed))
    };
    let password = ask("Password: ")?;
    if *ask("Repeat password: ")? == *password {
        Ok(password)
    } else {
        Err("the passwords do not match".to_owned().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_standard_input_loses_one_end_of_line() {
        for (input, password) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            ("secret\n\n", "secret\n"),
        ] {
            assert_eq!(from_input(input.as_bytes()).ok().as_deref().map(String::as_str), Some(password));
        }
        assert!(from_input(&b"\xff\xfe"[..]).is_err());
    }

    #[test]
    fn the_user_name_is_no_password_however_it_is_spelled() {
        for password in ["margarethe", "Margarethe", "MARGARETHE"] {
            assert!(check_against_name(password, "margarethe").is_err());
        }
        assert!(check_against_name("margarethe1", "margarethe").is_ok());
    }
}
