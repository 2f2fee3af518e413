//! What no compiler checks: floors, module comments, the shim, models and faults that are named.
//!
//! The files are those of the repository; a packaged crate has no others to look at.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The crates, and those of ours that each may stand on.
const CRATES: &[(&str, &[&str])] = &[
    ("timer", &[]),
    ("scheduler", &["weald-timer"]),
    ("sync", &["weald-scheduler"]),
    ("net", &["weald-scheduler", "weald-sync"]),
    ("patch", &["weald-scheduler"]),
    ("tracing", &["weald-scheduler"]),
    ("http", &["weald-scheduler", "weald-sync", "weald-net"]),
];

/// The scheduler's lowest files and folders, and what of the crate each may name. Whatever is not
/// listed here knows of green threads, and of who runs them: see `ARCHITECTURE.md`.
const LOW: &[(&str, &[&str])] = &[
    ("shim", &["patch"]),
    ("door", &["shim"]),
    ("eager", &[]),
    ("ends", &["shim"]),
    ("forks", &["shim"]),
    ("idle", &["shim"]),
    ("os_parker", &["shim"]),
    ("state", &["shim"]),
    ("errno", &[]),
    ("stack", &["errno", "shim"]),
    ("prefetch", &[]),
    ("quietly", &[]),
    ("coroutine", &["prefetch", "shim", "stack"]),
    ("queue", &["green_thread", "shim"]),
    ("poller", &["patch", "shim"]),
];

/// What a file with a model has from its shim alone.
const SHIMMED: &[&str] = &[
    "std::sync::atomic",
    "std::sync::Mutex",
    "std::sync::Condvar",
    "std::thread::spawn",
    "std::thread::park",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().unwrap() != "target" {
                found.extend(files(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines of production code, without comments.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]\n#[allow").next().unwrap();
    let lines = production.lines().map(|line| match line.find("//") {
        Some(at) => &line[..at],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The words that follow `before` in the text.
fn words_after<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let word = |rest: &'a str| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        &rest[..end.unwrap_or(rest.len())]
    };
    text.split(before).skip(1).map(word).collect()
}

/// The sources of the crates and the facade.
fn sources() -> Vec<PathBuf> {
    let folders = CRATES.iter().map(|(name, _)| root().join(name).join("src"));
    let folders = folders.chain([root().join("src")]);
    folders.flat_map(|folder| files(&folder)).collect()
}

#[test]
fn a_crate_stands_on_lower_ones_only() {
    for (name, below) in CRATES {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for (other, _) in CRATES {
            let other = format!("weald-{other}");
            let names = dependencies
                .lines()
                .any(|line| line.starts_with(&format!("{other} ")));
            assert!(
                !names || below.contains(&other.as_str()),
                "{name} must not depend on {other}"
            );
        }
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} has the workspace's lints"
        );
    }
}

#[test]
fn the_lowest_files_of_the_scheduler_know_nothing_of_those_above() {
    let folder = root().join("scheduler/src");
    for (name, may) in LOW {
        let alone = folder.join(format!("{name}.rs"));
        let files = if alone.exists() {
            vec![alone]
        } else {
            files(&folder.join(name))
        };
        assert!(!files.is_empty(), "{name} is there");
        for file in files {
            for other in words_after(&code(&read(&file)), "crate::") {
                assert!(
                    other == *name || may.contains(&other),
                    "{} must not name crate::{other}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let more = [
        "tests",
        "examples",
        "benches/src",
        "benches/benches",
        "loom-tests/src",
        "loom-tests/tests",
    ];
    let more = more.iter().flat_map(|folder| files(&root().join(folder)));
    for file in sources().into_iter().chain(more) {
        // The cases of the parity suite are included in two modules, whose comment speaks for them.
        if file.parent().unwrap().ends_with("std_parity") {
            continue;
        }
        assert!(
            read(&file).starts_with("//!"),
            "{} begins with a module comment",
            file.display()
        );
    }
}

#[test]
fn a_file_with_a_model_takes_its_primitives_from_the_shim() {
    let mut checked = 0;
    for file in sources() {
        let text = read(&file);
        let mut models = text.split("loom-tests/tests/").skip(1);
        let Some(model) = models.next() else { continue };
        let name = &model[..model.find(".rs").unwrap()];
        let model = root().join(format!("loom-tests/tests/{name}.rs"));
        assert!(model.exists(), "{} names {name}.rs", file.display());
        let code = code(&text);
        for primitive in SHIMMED {
            assert!(
                !code.contains(primitive),
                "{} has {primitive} from elsewhere",
                file.display()
            );
        }
        checked += 1;
    }
    assert!(checked > 5, "models are named: {checked}");
}

#[test]
fn every_seeded_fault_is_listed_with_a_model_and_every_listed_one_is_seeded() {
    let mut seeded = BTreeSet::new();
    let models = files(&root().join("loom-tests/tests"));
    for file in sources().iter().chain(&models) {
        let text = read(file);
        let mut seeds = text.split("weald_fault = \"");
        let mut before = seeds.next().unwrap();
        for name in seeds {
            // Only such a one can ask at run time instead: one build then has all faults.
            assert!(
                before.ends_with("cfg!("),
                "{}: a fault is seeded by an expression, `cfg!(weald_fault = ..)`",
                file.display()
            );
            let end = name.find('"').unwrap();
            assert!(
                name[end..].starts_with("\")"),
                "{}: one a time",
                file.display()
            );
            seeded.insert(name[..end].to_owned());
            before = name;
        }
    }
    let list = read(&root().join("loom-tests/faults.txt"));
    let mut listed = BTreeSet::new();
    for line in list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let mut words = line.split_whitespace();
        let (fault, model) = (words.next().unwrap(), words.next().unwrap());
        assert!(listed.insert(fault.to_owned()), "{fault} is listed twice");
        let (file, name) = model.split_once("::").unwrap();
        let text = read(&root().join(format!("loom-tests/tests/{file}.rs")));
        assert!(
            text.contains(&format!("fn {name}()")),
            "{fault}: no model {model}"
        );
    }
    assert_eq!(seeded, listed);
}
