//! A Rust source file as the architecture test reads it: without comments, texts and its tests.
//!
//! This is no parser. It knows just enough of the language not to take a comment or a text for code.

const TESTS: &str = "#[cfg(test)]\nmod tests {";

/// One file of the workspace.
pub(crate) struct Source {
    /// Relative to the workspace.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) text: String,
    code: String,
    tests: String,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let mut code = without_comments_and_texts(&text);
        let mut tests = String::new();
        if let Some(start) = code.find(TESTS) {
            let end = start + block(&code[start..]);
            tests = code.drain(start..end).collect();
        }
        Self { path, text, code, tests }
    }

    /// Whether the whole file is part of test builds only.
    pub(crate) fn is_test(&self) -> bool {
        let stem = self.path.trim_end_matches(".rs").rsplit('/').next().unwrap_or_default();
        let folder = self.path.contains("/tests/") || self.path.contains("/testing/");
        folder || stem == "tests" || stem == "testing" || stem.ends_with("_tests")
    }

    /// The file's module path below the source folder: `shard/mod.rs` is `[shard]`.
    pub(crate) fn module(&self, folder: &str) -> Vec<String> {
        let below = self.path.trim_start_matches(folder).trim_matches('/').trim_end_matches(".rs");
        let mut module: Vec<String> = below.split('/').map(str::to_owned).collect();
        module.pop_if(|last| last == "mod");
        module
    }

    /// Whether the code, its tests apart, contains `word`, not as a part of a longer one.
    pub(crate) fn names(&self, word: &str) -> bool {
        contains(&self.code, word)
    }

    /// Whether the code or its tests contain `word`.
    pub(crate) fn names_anywhere(&self, word: &str) -> bool {
        contains(&self.code, word) || contains(&self.tests, word)
    }

    /// The crate's top-level modules that the code names through `crate::` and `super::`.
    pub(crate) fn imports(&self, module: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for at in starts_of(&self.code, "crate::") {
            found.extend(heads(&self.code[at + "crate::".len()..]));
        }
        for at in starts_of(&self.code, "super::") {
            let mut rest = &self.code[at..];
            let mut module = module;
            while let Some(inner) = rest.strip_prefix("super::") {
                rest = inner;
                module = module.split_last().map_or(module, |(_, outer)| outer);
            }
            // Only a path that climbs to the top can reach another top-level module.
            if module.is_empty() {
                found.extend(heads(rest));
            }
        }
        found
    }
}

fn contains(code: &str, word: &str) -> bool {
    starts_of(code, word).any(|at| !code[at + word.len()..].starts_with(is_word_char))
}

/// The length of the first braced block and what comes before it.
fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// Where `word` starts a word and does not continue a path.
fn starts_of<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(|&at| {
        let before = &code[..at];
        !before.ends_with(is_word_char) && !before.ends_with("super::")
    })
}

/// The first names of a path or of a braced group of paths.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| is_word_char(*c)).collect::<String>();
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let mut found = vec![name(group.trim_start())];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(name(group[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == 'r' && !code.ends_with(is_word_char) && raw_text(rest).is_some() {
            raw_text(rest).unwrap_or(rest.len())
        } else if c == '"' {
            quoted(rest, '"').unwrap_or(rest.len())
        } else if c == '\'' && is_char_literal(rest) {
            quoted(rest, '\'').unwrap_or(rest.len())
        } else {
            0
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of a raw text such as `r#"…"#` at the start of `rest`.
fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = body.find(&close).map_or(body.len(), |end| end + close.len());
    Some(2 + hashes + end)
}

/// The length of what is quoted at the start of `rest`, with its quotes.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            _ if c == quote && !escaped => return Some(at + 1),
            _ => escaped = false,
        }
    }
    None
}

/// Tells `'a'` and `'\n'` from the lifetime `'a`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next().is_some_and(|first| first == '\\' || chars.next() == Some('\''))
}

#[test]
fn comments_and_texts_are_not_code() {
    let text = r##"//! unsafe
        let a = "unsafe \" unsafe"; /* unsafe */ let b = r#"unsafe " unsafe"#;
        let c = '"'; let d: &'static str = "unsafe"; // unsafe
        fn sensible_unsafety() {}"##;
    let source = Source::new("x.rs".into(), text.into());
    assert!(!source.names("unsafe") && source.names("sensible_unsafety"));
    assert!(Source::new("x.rs".into(), "let x = unsafe { y };".into()).names("unsafe"));
}

#[test]
fn imports_are_seen_in_every_form() {
    let code = "use crate::store::Store; use crate::{app::{App, self}, domain};
        use super::super::http; fn f() { crate::pki::load(); super::near() }";
    let source = Source::new("c/src/a/b.rs".into(), code.into());
    let module = source.module("c/src");
    assert_eq!(module, ["a", "b"]);
    assert_eq!(source.imports(&module), ["store", "app", "domain", "pki", "http"]);
}

#[test]
fn a_files_tests_are_told_apart_from_its_code() {
    let text = "fn f() {}\n#[cfg(test)]\nmod tests {\nfn g() { fs() } }\nfn h() { io() }";
    let source = Source::new("x.rs".into(), text.into());
    assert!(!source.names("fs") && source.names_anywhere("fs"));
    assert!(source.names("io"));
}
