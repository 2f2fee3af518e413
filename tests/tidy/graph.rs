//! Finds out which files of a crate name something of which other files, from `use` lines and from paths in the code.
//!
//! A name belongs to the file that defines it, whatever re-exports it on the way: a `mod.rs` or a `lib.rs` that
//! only re-exports is transparent. A call of a method names nothing. Code under `cfg(test)` is left out. Code for one
//! platform, feature or tool counts as if it were always there.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use self::source::{closing, end_of_item, is_for_tests, is_name, tree, words};

/// For each file, below the crate's `src`, the files that it names.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns the graph of the crate with this folder `src`.
pub(crate) fn of(src: &Path) -> Graph {
    let mut found = Crate::default();
    found.load(&src.join("lib.rs"), &[]);
    let name = |file: usize| {
        let path = found.files[file].strip_prefix(src).unwrap();
        path.to_str().unwrap().replace('\\', "/")
    };
    let mut graph: Graph = (0..found.files.len())
        .map(|file| (name(file), BTreeSet::new()))
        .collect();
    for (module, path) in &found.paths {
        let from = found.modules[*module].file;
        for to in found.resolve(*module, path, 0) {
            if let Meaning::Name(to) = to
                && to != from
            {
                graph.get_mut(&name(from)).unwrap().insert(name(to));
            }
        }
    }
    graph
}

/// Returns the files that name each other in circles, each circle sorted.
pub(crate) fn circles(graph: &Graph) -> Vec<Vec<String>> {
    // The files that can be reached from each file. The graphs are small.
    let reach: BTreeMap<&str, BTreeSet<&str>> = graph
        .keys()
        .map(|from| {
            let mut seen = BTreeSet::new();
            let mut next = vec![from.as_str()];
            while let Some(file) = next.pop() {
                for to in &graph[file] {
                    if seen.insert(to.as_str()) {
                        next.push(to);
                    }
                }
            }
            (from.as_str(), seen)
        })
        .collect();
    let mut circles = Vec::new();
    for file in graph.keys() {
        let circle: Vec<String> = (graph.keys())
            .filter(|other| {
                reach[file.as_str()].contains(other.as_str())
                    && reach[other.as_str()].contains(file.as_str())
            })
            .cloned()
            .collect();
        if circle.first() == Some(file) && circle.len() > 1 {
            circles.push(circle);
        }
    }
    circles
}

#[derive(Default)]
struct Crate {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
    /// Each use of a path, with the module that it is in.
    paths: Vec<(usize, Vec<String>)>,
}

#[derive(Default)]
struct Module {
    path: Vec<String>,
    file: usize,
    /// What a name means here. It means several things if `cfg` chooses.
    names: BTreeMap<String, Vec<Entry>>,
    globs: Vec<Vec<String>>,
}

#[derive(Clone)]
enum Entry {
    Defined,
    Module,
    Used(Vec<String>),
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A module of this path.
    Module(Vec<String>),
    /// Something that this file defines.
    Name(usize),
}

impl Crate {
    fn load(&mut self, file: &Path, path: &[String]) {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.files.push(file.to_path_buf());
        let number = self.files.len() - 1;
        let words = words(&text);
        let mut at = 0;
        self.module(&words, &mut at, path, number);
    }

    /// Reads the inside of a module, to its closing brace or to the end.
    fn module(&mut self, words: &[String], at: &mut usize, path: &[String], file: usize) {
        let module = self.modules.len();
        self.modules.push(Module {
            path: path.to_vec(),
            file,
            ..Module::default()
        });
        let mut depth = 0;
        let mut attributes: Vec<String> = Vec::new();
        let mut is_public = false;
        while *at < words.len() {
            let word = words[*at].as_str();
            let next = words.get(*at + 1).map_or("", String::as_str);
            match word {
                "#" => {
                    let end = closing(words, *at + if next == "!" { 2 } else { 1 });
                    if next != "!" {
                        attributes.push(words[*at..end].concat());
                    }
                    *at = end;
                    continue;
                }
                "pub" => {
                    is_public = true;
                    *at = if next == "(" {
                        closing(words, *at + 1)
                    } else {
                        *at + 1
                    };
                    continue;
                }
                _ if attributes.iter().any(|it| is_for_tests(it)) => {
                    *at = end_of_item(words, *at);
                }
                "mod" if is_name(next) => self.child(words, at, module, &attributes),
                "use" => self.used(words, at, module, is_public),
                // `*const T` defines nothing, and a `const fn` is found by its `fn`.
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                    if depth == 0
                        && is_name(next)
                        && !["fn", "unsafe", "extern", "mut"].contains(&next)
                        && (*at == 0 || words[*at - 1] != "*") =>
                {
                    self.enter(module, next, Entry::Defined);
                    *at += 2;
                }
                "macro_rules" if next == "!" => {
                    self.enter(module, &words[*at + 2].clone(), Entry::Defined);
                    *at += 3;
                }
                "{" => {
                    depth += 1;
                    *at += 1;
                }
                "}" if depth == 0 => {
                    *at += 1;
                    return;
                }
                "}" => {
                    depth -= 1;
                    *at += 1;
                }
                _ if is_name(word) && next == "::" => {
                    let mut path = vec![word.trim_start_matches('$').to_owned()];
                    *at += 1;
                    while words.get(*at).is_some_and(|it| it == "::")
                        && words.get(*at + 1).is_some_and(|it| is_name(it))
                    {
                        path.push(words[*at + 1].clone());
                        *at += 2;
                    }
                    self.paths.push((module, path));
                }
                // The rest of a path that begins elsewhere: `<T>::name`.
                "::" => *at += 2,
                _ => *at += 1,
            }
            attributes.clear();
            is_public = false;
        }
    }

    /// Reads a `mod`, with its file or its inside.
    fn child(&mut self, words: &[String], at: &mut usize, module: usize, attributes: &[String]) {
        let name = words[*at + 1].clone();
        let file = self.modules[module].file;
        let mut path = self.modules[module].path.clone();
        path.push(name.clone());
        self.enter(module, &name, Entry::Module);
        *at += 3;
        if words[*at - 1] == "{" {
            self.module(words, at, &path, file);
        } else {
            for file in self.files_of(file, &path, attributes) {
                self.load(&file, &path);
            }
        }
    }

    /// Reads a `use`. A `use` that re-exports names nothing.
    fn used(&mut self, words: &[String], at: &mut usize, module: usize, is_public: bool) {
        *at += 1;
        let mut used = Vec::new();
        tree(words, at, &mut Vec::new(), &mut used);
        for (path, name) in used {
            if name == "*" {
                self.modules[module].globs.push(path.clone());
            } else {
                self.enter(module, &name, Entry::Used(path.clone()));
            }
            if !is_public {
                self.paths.push((module, path));
            }
        }
    }

    fn enter(&mut self, module: usize, name: &str, entry: Entry) {
        let names = &mut self.modules[module].names;
        names.entry(name.to_owned()).or_default().push(entry);
    }

    /// Returns the paths of a module of a file: several if `cfg_attr` chooses.
    fn files_of(&self, file: usize, path: &[String], attributes: &[String]) -> Vec<PathBuf> {
        let parent = &self.files[file];
        let folder = parent.parent().unwrap();
        let said: Vec<_> = attributes
            .iter()
            .filter_map(|it| it.split_once("path=\""))
            .map(|(_, said)| folder.join(said.split('"').next().unwrap()))
            .collect();
        if !said.is_empty()
            && attributes
                .iter()
                .all(|it| !it.starts_with("#[cfg_attr(loom"))
        {
            return said;
        }
        let name = path.last().unwrap();
        let stem = parent.file_stem().unwrap().to_str().unwrap();
        let folder = match stem {
            "lib" | "mod" => folder.to_path_buf(),
            stem => folder.join(stem),
        };
        let alone = folder.join(format!("{name}.rs"));
        let file = if alone.exists() {
            alone
        } else {
            folder.join(name).join("mod.rs")
        };
        said.into_iter().chain([file]).collect()
    }

    fn modules_of<'a>(&'a self, path: &'a [String]) -> impl Iterator<Item = usize> + 'a {
        (0..self.modules.len()).filter(move |&at| self.modules[at].path == path)
    }

    /// Returns the meanings of a path that is written in this module.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Vec<Meaning> {
        if depth > 12 {
            return Vec::new();
        }
        let here = &self.modules[module];
        let mut base = here.path.clone();
        let mut rest = path;
        match path[0].as_str() {
            "crate" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|it| it == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                let is_known = here.names.contains_key(name)
                    || (here.globs.iter()).any(|glob| self.has(module, glob, name, depth));
                if !is_known {
                    return Vec::new();
                }
                return self.names_in(&[module], rest, depth);
            }
        }
        let Some(_) = rest.first() else {
            return vec![Meaning::Module(base)];
        };
        let modules: Vec<_> = self.modules_of(&base).collect();
        self.names_in(&modules, rest, depth)
    }

    fn has(&self, module: usize, glob: &[String], name: &str, depth: usize) -> bool {
        let found = self.resolve(module, glob, depth + 1);
        found.iter().any(|it| match it {
            Meaning::Module(path) => self
                .modules_of(path)
                .any(|at| self.modules[at].names.contains_key(name)),
            Meaning::Name(_) => false,
        })
    }

    /// Returns the meanings of a path that begins in one of these modules. All of them have the same path.
    fn names_in(&self, modules: &[usize], path: &[String], depth: usize) -> Vec<Meaning> {
        let mut found = Vec::new();
        let (name, rest) = (&path[0], &path[1..]);
        for &at in modules {
            let module = &self.modules[at];
            for entry in module.names.get(name).into_iter().flatten() {
                match entry {
                    Entry::Defined => found.push(Meaning::Name(module.file)),
                    Entry::Module => {
                        let mut path = module.path.clone();
                        path.push(name.clone());
                        found.extend(self.go_on(path, rest, depth));
                    }
                    Entry::Used(used) if used.len() == 1 && used[0] == *name => {}
                    Entry::Used(used) => {
                        for meaning in self.resolve(at, used, depth + 1) {
                            match meaning {
                                Meaning::Module(path) => {
                                    found.extend(self.go_on(path, rest, depth));
                                }
                                name @ Meaning::Name(_) => found.push(name),
                            }
                        }
                    }
                }
            }
            if module.names.contains_key(name) {
                continue;
            }
            for glob in &module.globs {
                if self.has(at, glob, name, depth) {
                    for meaning in self.resolve(at, glob, depth + 1) {
                        if let Meaning::Module(path) = meaning {
                            found.extend(self.go_on_to(path, name, rest, depth));
                        }
                    }
                }
            }
        }
        found
    }

    fn go_on(&self, path: Vec<String>, rest: &[String], depth: usize) -> Vec<Meaning> {
        if rest.is_empty() {
            return vec![Meaning::Module(path)];
        }
        let modules: Vec<_> = self.modules_of(&path).collect();
        self.names_in(&modules, rest, depth + 1)
    }

    fn go_on_to(
        &self,
        path: Vec<String>,
        name: &str,
        rest: &[String],
        depth: usize,
    ) -> Vec<Meaning> {
        let mut all = vec![name.to_owned()];
        all.extend_from_slice(rest);
        self.go_on(path, &all, depth)
    }
}
