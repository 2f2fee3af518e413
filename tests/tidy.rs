//! Checks what no compiler checks: floors, circles, module comments, the shim, models and faults that are named.
//!
//! The files are those of the repository. A packaged crate does not have the others.

#![allow(clippy::unwrap_used, reason = "unwrap is for tests")]

#[path = "tidy/graph.rs"]
mod graph;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::graph::Graph;

/// The crates, and which of our crates each may use.
const CRATES: &[(&str, &[&str])] = &[
    ("timer", &[]),
    ("scheduler", &["weald-timer"]),
    ("sync", &["weald-scheduler"]),
    ("net", &["weald-scheduler", "weald-sync"]),
    ("macros", &[]),
    ("patch", &["weald-scheduler"]),
    ("tracing", &["weald-scheduler"]),
    ("http", &["weald-scheduler", "weald-sync", "weald-net"]),
    ("console", &["weald-http"]),
];

/// The floors of the scheduler, the lowest first: folders of its `src`. `ARCHITECTURE.md` has the same table, and
/// tells what each holds.
const FLOORS: &[&str] = &[
    "shim", "parts", "green", "engine", "wait", "run", "watch", "verbs",
];

/// Files whose imports are not counted, in either direction, each with a reason.
const APART: &[(&str, &str, &str)] = &[(
    "scheduler",
    "thin.rs",
    "the second implementation of the engine, for `weald::model` under loom alone",
)];

/// Primitives that a file with a model may take only from its shim.
const SHIMMED: &[&str] = &[
    "std::sync::atomic",
    "std::sync::Mutex",
    "std::sync::Condvar",
    "std::thread::spawn",
    "std::thread::park",
];

/// How a fault is seeded: the macros of `for_models.rs`, with the name of the fault first.
const SEEDS: &[&str] = &["fault!(", "unless!(", "relaxed_if!("];

/// The copies of the file that defines them.
const FAULTS: &[&str] = &[
    "scheduler/src/shim/for_models.rs",
    "timer/src/shim/for_models.rs",
    "sync/src/shim/for_models.rs",
    "net/src/for_models.rs",
    "patch/src/for_models.rs",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns all Rust files below a folder.
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

/// Returns the lines of production code, without comments.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]\n#[allow").next().unwrap();
    let lines = production.lines().map(|line| match line.find("//") {
        Some(at) => &line[..at],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the sources of the crates and the facade.
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

/// Returns the imports of a crate, without those from and to the files of `APART`.
fn imports(name: &str) -> Graph {
    let src = match name {
        "weald" => root().join("src"),
        name => root().join(name).join("src"),
    };
    let mut graph = graph::of(&src);
    for (_, file, _) in APART.iter().filter(|(of, ..)| *of == name) {
        let found = graph.remove(*file);
        assert!(found.is_some(), "{name}: {file} is there");
        for named in graph.values_mut() {
            named.remove(*file);
        }
    }
    graph
}

#[test]
fn no_files_name_each_other_in_a_circle() {
    let names = CRATES.iter().map(|(name, _)| *name).chain(["weald"]);
    let mut seen = 0;
    for name in names {
        let graph = imports(name);
        seen += graph.values().flatten().count();
        let circles = graph::circles(&graph);
        assert!(
            circles.is_empty(),
            "{name}: these name each other in a circle: {circles:?}"
        );
    }
    assert!(seen > 600, "imports are found: {seen}");
}

#[test]
fn imports_of_the_scheduler_go_to_the_same_floor_or_down() {
    let floor = |file: &str| {
        let (folder, _) = file.split_once('/')?;
        FLOORS.iter().position(|floor| *floor == folder)
    };
    let mut seen = BTreeSet::new();
    for (from, named) in imports("scheduler") {
        if from == "lib.rs" {
            continue;
        }
        let here = floor(&from).unwrap_or_else(|| panic!("{from} is on a floor"));
        seen.insert(here);
        for to in named.iter().filter(|to| *to != "lib.rs") {
            let there = floor(to).unwrap_or_else(|| panic!("{to} is on a floor"));
            assert!(
                there <= here,
                "{from} is on the floor `{}` and names {to}, which is above it",
                FLOORS[here]
            );
        }
    }
    assert_eq!(seen.len(), FLOORS.len(), "no floor is empty");
}

#[test]
fn the_page_on_architecture_has_the_same_floors() {
    let page = read(&root().join("ARCHITECTURE.md"));
    let rows: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once("/`"))
        .map(|(folder, _)| folder)
        .filter(|folder| FLOORS.contains(folder))
        .collect();
    // The page shows the highest floor on top.
    let floors: Vec<_> = FLOORS.iter().rev().copied().collect();
    assert_eq!(rows, floors);
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
        // The cases of the parity suite are included in two modules, whose comment covers them.
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
fn a_file_that_a_comment_names_is_there() {
    let all: Vec<_> = files(root())
        .iter()
        .map(|file| format!("/{}", file.display()))
        .collect();
    let is_name = |c: char| c.is_alphanumeric() || "_/-.".contains(c);
    let mut seen = 0;
    for file in sources() {
        let text = read(&file);
        let comments = text.lines().filter_map(|line| line.split_once("//"));
        let words = comments.flat_map(|(_, comment)| comment.split(|c| !is_name(c)));
        for name in words.filter(|word| word.rsplit_once('.').is_some_and(|(_, end)| end == "rs")) {
            if name == "//docs.rs" {
                continue;
            }
            let end = format!("/{}", name.trim_start_matches(['.', '/']));
            assert!(
                all.iter().any(|file| file.ends_with(&end)),
                "{} names {name}, which is nowhere",
                file.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 200, "files are named: {seen}");
}

/// Returns the pages that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = [
        "",
        "docs",
        "http",
        "console",
        "loom-tests",
        "findings",
        "examples",
    ]
    .into_iter()
    .filter_map(|folder| fs::read_dir(root().join(folder)).ok())
    .flatten()
    .map(|entry| entry.unwrap().path())
    .filter(|path| path.extension().is_some_and(|it| it == "md"))
    .collect();
    pages.sort();
    pages
}

#[test]
fn a_link_of_a_page_leads_to_a_file() {
    let mut lost = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            if link.is_empty() || link.contains("://") || link.contains(' ') {
                continue;
            }
            count += 1;
            if !page.parent().unwrap().join(link).exists() {
                lost.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(count > 20, "{count} links were found");
    assert!(lost.is_empty(), "{lost:#?}");
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
fn no_build_output_is_kept() {
    let kept = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    // A tree without git keeps nothing.
    let Ok(kept) = kept else { return };
    let kept = String::from_utf8(kept.stdout).unwrap();
    for file in kept.split('\0') {
        let is_output = file.split('/').any(|folder| folder == "target");
        assert!(!is_output, "{file} is output of a build");
    }
}

#[test]
fn every_seeded_fault_is_listed_with_a_model_and_every_listed_one_is_seeded() {
    let mut seeded = BTreeSet::new();
    let models = files(&root().join("loom-tests/tests"));
    for file in sources().iter().chain(&models) {
        let text = read(file);
        for macro_name in SEEDS {
            // The name may be on the next line. Where the macros are defined there is none.
            for seed in text.split(macro_name).skip(1) {
                if let Some(name) = seed.trim_start().strip_prefix('"') {
                    seeded.insert(name.split('"').next().unwrap().to_owned());
                }
            }
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
        // A model may be in a module of its file.
        let (file, name) = match name.split_once("::") {
            Some((module, name)) => (format!("{module}/mod"), name),
            None => (file.to_owned(), name),
        };
        let text = read(&root().join(format!("loom-tests/tests/{file}.rs")));
        assert!(
            text.contains(&format!("fn {name}()")),
            "{fault}: no model {model}"
        );
    }
    assert_eq!(seeded, listed);
}

#[test]
fn faults_are_seeded_by_the_same_macros_in_all_crates() {
    let first = read(&root().join(FAULTS[0]));
    for copy in FAULTS {
        assert_eq!(read(&root().join(copy)), first, "{copy} is a copy");
    }
    for file in sources() {
        let is_copy = FAULTS.iter().any(|copy| file.ends_with(copy));
        assert!(
            is_copy || !read(&file).contains("weald_fault"),
            "{} seeds a fault by a macro of `for_models.rs`",
            file.display()
        );
    }
}
