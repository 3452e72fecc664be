//! The house rules that a compiler does not check: the order of modules, the size of files and functions, where `unsafe`
//! and locks may stand, and what must not be left behind. Each rule is a function from text to complaints; the tests at
//! the end run it over samples first, so that a rule that has gone blind is noticed.

use std::fs;
use std::path::{Path, PathBuf};

use reading::{blank, first_names, line_of, words};

#[path = "tidy/reading.rs"]
mod reading;

/// The modules of the library, lowest first. A module uses only those before it (and itself).
const LAYERS: [&str; 15] = [
    "error", "sync", "mutant", "types", "config", "metrics", "fs", "format", "segment", "journal", "log",
    "snapshot", "engine", "catchup", "inspect",
];

/// Pairs that the order would permit and that must not know each other all the same.
const STRANGERS: [(&str, &str); 2] = [("format", "fs"), ("snapshot", "log")];

/// Where `.rs` files of the project stand.
const ROOTS: [&str; 7] = ["src", "tests", "benches", "fuzz", "cli", "examples", "adapters"];

/// What has locks, atomics or threads of its own, which loom could not see.
const UNSEEN: [&str; 4] = ["std::thread", "core::sync", "parking_lot", "rustix::thread"];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const README_LINES_MAX: usize = 149;

/// A source file: its path from the root of the project, and its text.
struct Source {
    path: String,
    text: String,
    /// The text with comments and the insides of literals blanked, line by line as before.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code: blank(text),
        }
    }

    /// The module of the library that the file belongs to, `lib` for the root.
    fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        Some(rest.split('/').next()?.trim_end_matches(".rs"))
    }

    /// The code without its tests.
    fn shipped(&self) -> &str {
        if self.is_test_file() {
            return "";
        }
        &self.code[..self.code.find("\nmod tests {").unwrap_or(self.code.len())]
    }

    /// The tests in the code: all of a test file, the end of another one.
    fn tests(&self) -> &str {
        if self.is_test_file() {
            return &self.code;
        }
        &self.code[self.code.find("\nmod tests {").unwrap_or(self.code.len())..]
    }

    fn is_test_file(&self) -> bool {
        self.path.ends_with("tests.rs") || self.path.split('/').any(|part| part == "tests")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for start in ROOTS {
        collect(&root().join(start), &mut paths);
    }
    paths.sort();
    assert!(paths.len() > 5, "the sources were not found: {paths:?}");
    paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let short = path.strip_prefix(root()).unwrap().to_str().unwrap();
            Source::new(short, &text)
        })
        .collect()
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Checks every source with `rule` and shows all that it has to say.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let bad: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            rule(source)
                .into_iter()
                .map(|what| format!("{}: {what}", source.path))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The items that `lib.rs` re-exports, each with its module.
fn reexports(lib: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for statement in blank(lib).split(';') {
        let Some(path) = statement.split("pub use ").nth(1) else {
            continue;
        };
        if let Some((module, rest)) = path.trim().split_once("::") {
            found.extend(
                first_names(rest)
                    .into_iter()
                    .map(|name| (name.to_owned(), module.to_owned())),
            );
        }
    }
    found
}

// ---- the rules ----

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| *layer == module)
}

/// Uses of a module of the crate that stands higher, or that is a stranger.
fn order(source: &Source, reexports: &[(String, String)]) -> Vec<String> {
    let module = match source.module() {
        None | Some("lib") => return Vec::new(),
        Some(module) => module,
    };
    let Some(level) = layer(module) else {
        return vec![format!("module {module} has no place in the order")];
    };
    let mut bad = Vec::new();
    for at in words(&source.code, "crate") {
        let Some(rest) = source.code[at + 5..].strip_prefix("::") else {
            continue;
        };
        for name in first_names(rest) {
            let used = reexports
                .iter()
                .find(|(item, _)| item == name)
                .map_or(name, |(_, module)| module);
            let lower = layer(used).is_some_and(|l| l <= level);
            if !lower || STRANGERS.contains(&(module, used)) {
                bad.push(format!(
                    "line {}: {module} uses {used}",
                    line_of(&source.code, at)
                ));
            }
        }
    }
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    for (number, line) in source.code.lines().enumerate() {
        let imports = line.starts_with("use super::") || line.starts_with("pub use super::");
        if imports && line.matches("super::").count() >= depth {
            bad.push(format!("line {}: climbs to the root; say crate::", number + 1));
        }
    }
    bad
}

/// Programs stand on the public API, and the library hides nothing for them.
fn public_api_only(source: &Source) -> Vec<String> {
    let mut bad = Vec::new();
    if source.path.starts_with("src/") && source.code.contains("doc(hidden)") {
        bad.push("hides a public item; show it in inspect or keep it private".to_owned());
    }
    let outside = source.path.starts_with("cli/") || source.path.starts_with("adapters/");
    let shares = |line: &str| line.contains("#[path") && !line.contains("tests/support/");
    if outside && (source.text.lines().any(shares) || source.text.contains("../src/")) {
        bad.push("reaches into the library's sources".to_owned());
    }
    bad
}

fn file_size(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let fits = lines <= FILE_LINES_MAX;
    (!fits)
        .then(|| format!("{lines} lines, at most {FILE_LINES_MAX}"))
        .into_iter()
        .collect()
}

fn function_size(source: &Source) -> Vec<String> {
    let mut bad = Vec::new();
    for at in words(&source.code, "fn") {
        let Some(body) = body_end(&source.code[at..]) else {
            continue;
        };
        let lines = source.code[at..at + body].matches('\n').count() + 1;
        if lines > FUNCTION_LINES_MAX {
            let line = line_of(&source.code, at);
            bad.push(format!(
                "line {line}: a function of {lines} lines, at most {FUNCTION_LINES_MAX}"
            ));
        }
    }
    bad
}

/// Where the body of the function that `code` starts with ends; `None` without a body (a type, a trait's declaration).
fn body_end(code: &str) -> Option<usize> {
    if !code
        .strip_prefix("fn ")?
        .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    {
        return None;
    }
    let (mut round, mut curly) = (0, 0);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => curly += 1,
            b'}' if curly == 1 => return Some(at + 1),
            b'}' => curly -= 1,
            b';' if round == 0 && curly == 0 => return None,
            _ => {}
        }
    }
    None
}

fn ascii(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.is_ascii())
        .map(|(number, _)| format!("line {}: not ASCII", number + 1))
        .collect()
}

fn leftovers(source: &Source) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let calls = ["to_do", "d_bg", "unimple_mented"].map(|name| name.replace('_', "") + "!");
    let marks = ["FIX_ME", "TO_DO", "X_XX"].map(|name| name.replace('_', ""));
    let calls = calls.iter().map(|call| (call, &source.code));
    let marks = marks.iter().map(|mark| (mark, &source.text));
    let mut bad = Vec::new();
    for (what, text) in calls.chain(marks) {
        for at in words(text, what) {
            bad.push(format!("line {}: {what} was left behind", line_of(text, at)));
        }
    }
    bad
}

fn unsafe_in_one_place(source: &Source) -> Vec<String> {
    if source.path == "src/fs/sys.rs" {
        return Vec::new();
    }
    let places = words(&source.code, "unsafe");
    places
        .iter()
        .map(|at| {
            format!(
                "line {}: unsafe belongs in src/fs/sys.rs",
                line_of(&source.code, *at)
            )
        })
        .collect()
}

/// Tests wait for what they need, never for time to pass.
fn no_sleep_in_tests(source: &Source) -> Vec<String> {
    let tests = source.tests();
    let before = source.code.len() - tests.len();
    words(tests, "sleep")
        .iter()
        .map(|at| format!("line {}: a test sleeps", line_of(&source.code, before + at)))
        .collect()
}

/// Locks, atomics and threads of the library go through `crate::sync`. `Arc` is neither.
fn locks_through_the_seam(source: &Source) -> Vec<String> {
    if source.module().is_none_or(|module| module == "sync") {
        return Vec::new();
    }
    let code = source.shipped();
    let mut bad = Vec::new();
    for name in UNSEEN {
        for at in words(code, name) {
            bad.push(format!("line {}: {name}; use crate::sync", line_of(code, at)));
        }
    }
    for at in words(code, "std::sync") {
        let rest = code[at..].strip_prefix("std::sync::").unwrap_or("");
        if first_names(rest)
            .iter()
            .any(|name| !["Arc", "Weak"].contains(name))
        {
            bad.push(format!("line {}: std::sync; use crate::sync", line_of(code, at)));
        }
    }
    bad
}

// ---- the tests ----

#[test]
fn modules_use_only_lower_layers() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let reexports = reexports(&lib);
    assert!(
        reexports.contains(&("Config".to_owned(), "config".to_owned())),
        "{reexports:?}"
    );
    check(|source| order(source, &reexports));
}

#[test]
fn programs_use_only_the_public_api() {
    check(public_api_only);
}

#[test]
fn files_and_functions_are_short() {
    check(file_size);
    check(function_size);
}

#[test]
fn sources_are_ascii() {
    check(ascii);
}

#[test]
fn nothing_was_left_behind() {
    check(leftovers);
}

#[test]
fn unsafe_stands_in_one_file() {
    check(unsafe_in_one_place);
}

#[test]
fn tests_do_not_sleep() {
    check(no_sleep_in_tests);
}

#[test]
fn locks_and_threads_go_through_the_seam() {
    check(locks_through_the_seam);
}

#[test]
fn readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md"))
        .unwrap_or_default()
        .lines()
        .count();
    assert!(
        lines <= README_LINES_MAX,
        "README.md has {lines} lines, at most {README_LINES_MAX}"
    );
}

#[test]
fn comments_and_literals_are_blanked_and_lifetimes_are_not() {
    let text = "a /* { /* } */ */ b // {\n\"}\\\"{\" r#\"}\"{\"# '{' '\\'' b'}' &'a str r#fn br\"{\" c\n";
    let code = blank(text);
    assert_eq!(code.matches(['{', '}']).count(), 0, "{code}");
    assert_eq!(code.len(), text.len());
    for kept in ["a ", " b ", "&'a str", "r#fn", " c\n"] {
        assert!(code.contains(kept), "{kept:?} in {code:?}");
    }
}

#[test]
fn a_use_of_a_higher_layer_is_found_in_every_spelling() {
    let reexports = reexports("mod a;\npub use journal::{Journal, Ticket};\npub use error::Error;\n");
    let bad = |path: &str, text: &str| order(&Source::new(path, text), &reexports).len();
    assert_eq!(
        bad(
            "src/format/mod.rs",
            "use crate::error::Error;\nuse crate::format::x;"
        ),
        0
    );
    assert_eq!(bad("src/format/mod.rs", "use crate::journal::X;"), 1);
    assert_eq!(
        bad(
            "src/format/mod.rs",
            "use crate::{error::{A, B},\n journal::{C, D},\n log};"
        ),
        2
    );
    assert_eq!(
        bad("src/format/mod.rs", "fn f() -> crate::Ticket { crate::Error }"),
        1
    );
    assert_eq!(bad("src/format/mod.rs", "use crate::fs::Fs;"), 1, "strangers");
    assert_eq!(bad("src/snapshot.rs", "use crate::log::Log;"), 1, "strangers");
    assert_eq!(
        bad("src/segment/read.rs", "use crate::fs::Fs; // crate::journal"),
        0
    );
    assert_eq!(bad("src/segment/read.rs", "use super::name;"), 0);
    assert_eq!(bad("src/segment/read.rs", "use super::super::journal;"), 1);
    assert_eq!(bad("src/segment/mod.rs", "use super::journal;"), 1);
    assert_eq!(bad("src/new.rs", ""), 1, "a module without a place");
    assert_eq!(bad("src/lib.rs", "use crate::journal::X;"), 0);
}

#[test]
fn a_long_function_is_found_and_a_type_is_not_one() {
    let long = |lines: usize| {
        format!(
            "fn f(x: [u8; 2]) -> [u8; 2] {{\n{}}}\n",
            "{ \"}\" };\n".repeat(lines)
        )
    };
    let count = |text: &str| function_size(&Source::new("src/a.rs", text)).len();
    assert_eq!(count(&long(FUNCTION_LINES_MAX - 2)), 0);
    assert_eq!(count(&long(FUNCTION_LINES_MAX - 1)), 1);
    assert_eq!(
        count(&format!(
            "trait T {{ fn g(&self) -> [u8; 2];\n{}}}",
            "\n".repeat(90)
        )),
        0
    );
    assert_eq!(
        count(&format!("struct S {{ f: fn(u8) -> u8,\n{}}}", "\n".repeat(90))),
        0
    );
}

#[test]
fn the_other_rules_see_what_they_forbid() {
    let source = |path: &str, text: &str| Source::new(path, text);
    let left = format!(
        "{}!(1); // {}: later",
        ["d", "bg"].concat(),
        ["TO", "DO"].concat()
    );
    assert_eq!(leftovers(&source("src/a.rs", &left)).len(), 2);
    assert_eq!(ascii(&source("src/a.rs", "x\ny \u{e9}\n")), ["line 2: not ASCII"]);
    let block = "fn f() { unsafe {} } // unsafe\n#![deny(unsafe_code)]";
    assert_eq!(unsafe_in_one_place(&source("src/a.rs", block)).len(), 1);
    assert_eq!(unsafe_in_one_place(&source("src/fs/sys.rs", block)).len(), 0);
    let nap = "fn f() { nap(sleep(1)) }\nmod tests {\n fn g() { thread::sleep(d) }\n}";
    assert_eq!(
        no_sleep_in_tests(&source("src/a.rs", nap)),
        ["line 3: a test sleeps"]
    );
    assert_eq!(no_sleep_in_tests(&source("tests/a.rs", nap)).len(), 2);
    let locks = "use std::sync::Arc;\nuse std::sync::{Arc, Mutex};\nuse parking_lot::Mutex;\nmod tests {\nuse std::thread;}";
    assert_eq!(
        locks_through_the_seam(&source("src/journal/a.rs", locks)).len(),
        2
    );
    assert_eq!(locks_through_the_seam(&source("src/sync.rs", locks)).len(), 0);
    assert_eq!(
        file_size(&source("src/a.rs", &"\n".repeat(FILE_LINES_MAX + 1))).len(),
        1
    );
    assert_eq!(public_api_only(&source("src/a.rs", "#[doc(hidden)]")).len(), 1);
    assert_eq!(
        public_api_only(&source("cli/src/a.rs", "include!(\"../../src/a.rs\")")).len(),
        1
    );
}
