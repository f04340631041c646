//! Asking a person for secrets.
//!
//! At a terminal nothing that is typed is shown; from a pipe one line is read for each question, so
//! that a script can answer.

use std::io::{BufRead as _, IsTerminal as _};

use partywall_proto::keys::Secret;
use zeroize::Zeroizing;

use super::CtlError;

/// Longest line that is taken from a pipe, in bytes; a password of more is a mistake.
const LINE_MAX_BYTES: u64 = 4096;

/// Asks `question` and takes the answer without showing it.
pub(super) fn secret(question: &str) -> Result<Secret, CtlError> {
    let answer = match std::io::stdin().is_terminal() {
        true => Zeroizing::new(rpassword::prompt_password(format!("{question}: "))?),
        false => line_from_pipe()?,
    };
    let answer = answer.trim_end_matches(['\r', '\n']);
    match answer.is_empty() {
        true => Err(CtlError::Usage(format!(
            "no answer to {question:?}: type it, or pipe it in as a line"
        ))),
        false => Ok(Secret::from(answer.to_owned())),
    }
}

fn line_from_pipe() -> Result<Zeroizing<String>, CtlError> {
    let mut line = Zeroizing::new(String::new());
    std::io::Read::take(std::io::stdin().lock(), LINE_MAX_BYTES).read_line(&mut line)?;
    Ok(line)
}

/// Asks twice at a terminal, because nobody sees what they type; once from a pipe.
pub(super) fn new_secret(question: &str) -> Result<Secret, CtlError> {
    let first = secret(question)?;
    if std::io::stdin().is_terminal() && secret("the same again")? != first {
        return Err(CtlError::Usage("the two differ; nothing was changed".to_owned()));
    }
    Ok(first)
}
