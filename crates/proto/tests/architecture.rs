//! The shape of the core, read from its source: which module uses which.
//!
//! What counts as use: each path of a `use` declaration, and each path in code that begins with
//! `crate`, `super` or a child module. Production code only: comments, strings and items under
//! `#[cfg(test)]` are left out. A path means the deepest module that it names. A name that the
//! crate root re-exports means the module that the root takes it from.
//!
//! The rules:
//! 1. **No circles between top-level modules.** The crate root itself stands apart: it names its
//!    modules, and they may use the traits that it defines.
//! 2. **No circles between the files of a module**, its folders included. A module's own file
//!    (`mod.rs`, or the file beside the folder) is a file like the others. So a child may use items
//!    of its parent only where the parent uses nothing of that child by name; otherwise the items
//!    belong into a file of their own, which both use. Methods that another file adds to a type are
//!    not seen.
//! 3. **Floors.** A module uses none of the modules above its floor ([`FLOORS`]), and the core uses
//!    nothing of the system ([`SYSTEM`]).
//! 4. **Objects.** The types in [`OBJECTS`] have no more fields than their bound, and exactly one
//!    inherent `impl` block, in one file. `impl` blocks of traits are not counted.
//!
//! No rule has an exception.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a module may not use.
const FLOORS: &[(&str, &[&str])] = &[
    ("time", &["crypto", "packet", "view", "link", "session"]),
    ("units", &["crypto", "packet", "view", "link", "session"]),
    ("limits", &["packet", "view", "link", "session"]),
    // State.
    (
        "wire",
        &["packet", "crypto", "handshake", "link", "qos", "scheduler", "recovery", "reorder", "session"],
    ),
    ("wire", &["config", "endpoint", "client", "inner", "fec", "event", "stats"]),
    ("crypto", &["wire", "packet", "handshake", "link", "session", "endpoint", "client", "time"]),
    // The quality of links.
    (
        "handshake",
        &["view", "link", "qos", "scheduler", "recovery", "reorder", "session", "endpoint", "client"],
    ),
    // Other links, and what goes over them.
    ("link", &["inner", "handshake", "qos", "scheduler", "recovery", "reorder", "fec"]),
    ("link", &["session", "endpoint", "client", "event"]),
    // Keys, sockets, IP headers, and how a link's figures are found.
    ("scheduler", &["crypto", "wire", "inner", "handshake", "link", "recovery", "reorder", "fec"]),
    ("scheduler", &["session", "endpoint", "client", "event", "stats", "discard"]),
    ("view", &["crypto", "wire", "inner", "handshake", "link", "qos", "scheduler", "recovery", "session"]),
    // Links.
    ("qos", &["crypto", "wire", "handshake", "link", "view", "scheduler", "recovery", "reorder", "session"]),
    // Why a packet is late.
    ("reorder", &["crypto", "wire", "inner", "handshake", "link", "view", "qos", "scheduler", "recovery"]),
    ("reorder", &["session", "endpoint", "client", "event"]),
    // Links, keys, and when a piece is sent.
    ("streams", &["crypto", "inner", "handshake", "link", "view", "qos", "scheduler", "recovery", "reorder"]),
    ("streams", &["fec", "session", "endpoint", "client", "event", "config", "trace"]),
    // Anything but numbers.
    ("position", &["wire", "packet", "time", "link", "streams", "session"]),
    // IP, keys, and how a loss is found.
    (
        "recovery",
        &["crypto", "wire", "inner", "handshake", "link", "reorder", "session", "endpoint", "client"],
    ),
    ("fec", &["crypto", "wire", "inner", "handshake", "link", "scheduler", "recovery", "session"]),
    ("inner", &["crypto", "wire", "handshake", "link", "view", "scheduler", "recovery", "session", "time"]),
    ("session", &["endpoint", "client"]),
    ("client", &["endpoint"]),
    ("endpoint", &["client", "link", "scheduler", "recovery", "reorder", "inner", "fec"]),
];

/// What the core may not use of the standard library: it does no I/O and reads no clock.
const SYSTEM: &[&str] = &[
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
];

/// The composing types: module, name, and the most fields. Chosen: parts that a reader can still
/// name; what belongs together becomes a part of its own.
const OBJECTS: &[(&str, &str, usize)] = &[("link", "Link", 12), ("session", "Session", 15)];

/// A module's path below the crate; the crate root's is empty.
type Module = Vec<String>;

/// A file of the crate, without comments, strings and test code.
struct Source {
    module: Module,
    file: PathBuf,
    code: String,
}

/// A use of one module by another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: Module,
    to: Module,
    /// The path as it is written, which may be outside the crate.
    path: String,
    file: PathBuf,
}

impl Import {
    fn describe(&self) -> String {
        format!(
            "  {} -> {}: {}: `{}`",
            self.from.join("::"),
            self.to.join("::"),
            self.file.display(),
            self.path
        )
    }
}

/// Code with comments and the contents of strings and characters left out.
fn without_text(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if next == '"' {
            string_bytes(rest)
        } else if next == '\'' {
            character_bytes(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(next);
        }
        rest = &rest[skipped.max(if skipped == 0 { next.len_utf8() } else { 0 })..];
    }
    code
}

/// How long the string literal is that `rest` begins with.
fn string_bytes(rest: &str) -> usize {
    let mut escaped = false;
    for (at, next) in rest.char_indices().skip(1) {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// How long the character literal is that `rest` begins with; 0: it is a lifetime.
fn character_bytes(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            rest[2..].char_indices().skip(1).find(|(_, next)| *next == '\'').map_or(0, |(at, _)| at + 3)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Code without the items under `#[cfg(test)]`, and the modules in other files among these.
fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut modules) = (String::new(), Vec::new());
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item_bytes(item);
        let words: Vec<&str> = item[..end].split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| *word == "mod")
            && let Some(name) = words.get(at + 1).and_then(|name| name.strip_suffix(';'))
        {
            modules.push(name.to_owned());
        }
        rest = &item[end..];
    }
    kept.push_str(rest);
    (kept, modules)
}

/// How long the item is that `code` begins with: to its semicolon, or to its closing brace.
fn item_bytes(code: &str) -> usize {
    let head = code.split([';', '{']).next().unwrap_or(code);
    let is_use = head.split_whitespace().any(|word| word == "use");
    let mut depth = 0_usize;
    for (at, next) in code.char_indices() {
        match next {
            ';' if depth == 0 || is_use => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && !is_use {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The production code of the crate.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut tests = Vec::new();
    let mut sources = Vec::new();
    for path in files {
        let file = path.strip_prefix(&root).expect("below the root").to_owned();
        let mut module: Module =
            file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|name| name == "mod" || name == "lib") {
            module.pop();
        }
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let (code, of_tests) = without_tests(&without_text(&text));
        tests.extend(of_tests.into_iter().map(|name| [module.clone(), vec![name]].concat()));
        sources.push(Source { module, file, code });
    }
    sources.retain(|source| !tests.iter().any(|test| source.module.starts_with(test)));
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("a source folder is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// The paths of a `use` tree.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, body)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or(tree).trim().to_owned()];
    };
    let body = body.strip_suffix('}').unwrap_or(body);
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, next) in body.char_indices() {
        match next {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&body[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&body[start..]);
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(expand).map(|part| format!("{}{part}", prefix.trim())).collect()
}

/// The paths that code names, with whether they stand in a `pub use`.
fn paths(code: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find("use ") {
        let (before, after) = (&rest[..at], &rest[at + 4..]);
        found.extend(inline_paths(before).into_iter().map(|path| (path, false)));
        let is_word = before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let end = if is_word { 0 } else { after.find(';').unwrap_or(after.len()) };
        let is_public = before.trim_end().ends_with("pub");
        found.extend(
            expand(&after[..end]).into_iter().filter(|path| !path.is_empty()).map(|path| (path, is_public)),
        );
        rest = &after[end..];
    }
    found.extend(inline_paths(rest).into_iter().map(|path| (path, false)));
    found
}

/// The paths of more than one part in code outside of `use` declarations. A visibility is no use.
fn inline_paths(code: &str) -> Vec<String> {
    let is_part = |next: char| next.is_alphanumeric() || next == '_' || next == ':';
    let pieces = code.split("pub(in ");
    let visible = pieces.enumerate().map(|(at, piece)| match piece.split_once(')') {
        Some((_, behind)) if at > 0 => behind,
        Some(_) | None => piece,
    });
    let words = visible.flat_map(|piece| piece.split(|next: char| !is_part(next)));
    words.map(|word| word.trim_matches(':')).filter(|word| word.contains("::")).map(str::to_owned).collect()
}

/// The uses that modules make of each other.
fn imports(sources: &[Source]) -> Vec<Import> {
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let root = sources.iter().find(|source| source.module.is_empty()).expect("the crate has a root");
    let mut exported: BTreeMap<String, Module> = BTreeMap::new();
    for (path, _) in paths(&root.code).into_iter().filter(|(_, is_public)| *is_public) {
        let parts: Vec<String> = path.split("::").map(str::to_owned).collect();
        if let ([_, module, ..], Some(name)) = (parts.as_slice(), parts.last()) {
            exported.insert(name.clone(), vec![module.clone()]);
        }
    }
    let mut imports = BTreeSet::new();
    for source in sources.iter().filter(|source| !source.module.is_empty()) {
        for (path, _) in paths(&source.code) {
            let to = resolve(&path, &source.module, &modules, &exported);
            if let Some(to) = to.filter(|to| *to != source.module) {
                let (from, file) = (source.module.clone(), source.file.clone());
                imports.insert(Import { from, to, path, file });
            }
        }
    }
    imports.into_iter().collect()
}

/// The deepest module that a path names, seen from `module`. `None`: it is outside the crate.
fn resolve(
    path: &str,
    module: &[String],
    modules: &BTreeSet<&[String]>,
    exported: &BTreeMap<String, Module>,
) -> Option<Module> {
    let mut parts = path.split("::").map(str::to_owned).peekable();
    let mut at = match parts.peek()?.as_str() {
        "crate" => {
            parts.next();
            Vec::new()
        }
        "self" => {
            parts.next();
            module.to_vec()
        }
        "super" => {
            let mut at = module.to_vec();
            while parts.next_if(|part| part == "super").is_some() {
                at.pop();
            }
            at
        }
        child if modules.contains([module, &[child.to_owned()]].concat().as_slice()) => module.to_vec(),
        _ => return None,
    };
    for part in parts {
        if at.is_empty()
            && let Some(module) = exported.get(&part)
        {
            return Some(module.clone());
        }
        let child = [at.as_slice(), &[part]].concat();
        if !modules.contains(child.as_slice()) {
            break;
        }
        at = child;
    }
    Some(at)
}

/// The modules that lie on circles of these uses: those that reach themselves.
fn on_circles(edges: &BTreeSet<(Module, Module)>) -> BTreeSet<Module> {
    let starts: BTreeSet<&Module> = edges.iter().map(|(from, _)| from).collect();
    let reaches_itself = |start: &&&Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![**start]);
        while let Some(at) = next.pop() {
            next.extend(
                edges.iter().filter(|(from, _)| from == at).map(|(_, to)| to).filter(|to| seen.insert(*to)),
            );
        }
        seen.contains(**start)
    };
    starts.iter().filter(reaches_itself).map(|module| (*module).clone()).collect()
}

/// The top-level module that a module belongs to.
fn outermost(module: &Module) -> Module {
    vec![top(module).to_owned()]
}

/// The first part of a module's path.
fn top(module: &[String]) -> &str {
    module.first().map_or("the crate root", String::as_str)
}

/// The uses among `members`, a line each. `name`: the member that a module belongs to.
fn listed(imports: &[Import], members: &BTreeSet<Module>, name: impl Fn(&Module) -> Module) -> String {
    let is_among = |import: &&Import| {
        let (from, to) = (name(&import.from), name(&import.to));
        from != to && members.contains(&from) && members.contains(&to)
    };
    imports.iter().filter(is_among).map(Import::describe).collect::<Vec<_>>().join("\n")
}

#[test]
fn top_level_modules_use_each_other_in_no_circle() {
    let imports = imports(&sources());
    let edges: BTreeSet<(Module, Module)> = imports
        .iter()
        .filter(|import| !import.to.is_empty() && top(&import.from) != top(&import.to))
        .map(|import| (outermost(&import.from), outermost(&import.to)))
        .collect();
    let circle = on_circles(&edges);
    assert!(
        circle.is_empty(),
        "modules that use each other in a circle:\n{}",
        listed(&imports, &circle, outermost)
    );
}

#[test]
fn files_of_a_module_use_each_other_in_no_circle() {
    let imports = imports(&sources());
    let modules: BTreeSet<&str> = imports.iter().map(|import| top(&import.from)).collect();
    let mut wrong = Vec::new();
    for module in modules {
        let inside = imports.iter().filter(|import| top(&import.from) == module && top(&import.to) == module);
        let edges = inside.map(|import| (import.from.clone(), import.to.clone())).collect();
        let circle = on_circles(&edges);
        if !circle.is_empty() {
            wrong.push(format!("`{module}`:\n{}", listed(&imports, &circle, Module::clone)));
        }
    }
    assert!(wrong.is_empty(), "files that use each other in circles:\n{}", wrong.join("\n"));
}

#[test]
fn no_module_uses_what_it_may_not_know() {
    let sources = sources();
    let mut wrong = Vec::new();
    for import in imports(&sources) {
        let floors = FLOORS.iter().filter(|(module, _)| top(&import.from) == *module);
        if floors.flat_map(|(_, above)| above.iter()).any(|above| top(&import.to) == *above) {
            wrong.push(import.describe());
        }
    }
    for source in &sources {
        for (path, _) in paths(&source.code) {
            if SYSTEM.iter().any(|system| path.starts_with(system)) {
                wrong.push(format!("  {}: `{path}`", source.file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "modules that use what they may not know:\n{}", wrong.join("\n"));
}

#[test]
fn every_rule_names_modules_that_exist() {
    let sources = sources();
    let exists = |name: &str| sources.iter().any(|source| top(&source.module) == name);
    for (module, above) in FLOORS {
        let unknown: Vec<&&str> = above.iter().chain([module]).filter(|name| !exists(name)).collect();
        assert!(unknown.is_empty(), "FLOORS names {unknown:?}, which the crate does not have");
    }
}

#[test]
fn objects_have_few_fields() {
    let sources = sources();
    for (module, name, most) in OBJECTS {
        let declared = format!("struct {name} {{");
        let found = sources.iter().filter(|source| top(&source.module) == *module);
        let body = found.clone().find_map(|source| Some((source, source.code.split_once(&declared)?.1)));
        let (source, body) = body.unwrap_or_else(|| panic!("`{module}` has no `{declared}`"));
        let body = &body[..item_bytes(&format!("{{{body}")).saturating_sub(2)];
        let fields = count_fields(body);
        assert!(
            fields <= *most,
            "`{name}` in {} has {fields} fields, where {most} may be",
            source.file.display()
        );
    }
}

#[test]
fn objects_have_one_inherent_impl() {
    let sources = sources();
    for (_, name, _) in OBJECTS {
        let found = sources.iter().map(|source| (source.file.display(), inherent_impls(&source.code, name)));
        let found: Vec<_> = found.filter(|(_, count)| *count > 0).collect();
        let blocks: usize = found.iter().map(|(_, count)| count).sum();
        let files: Vec<String> = found.iter().map(|(file, count)| format!("  {file}: {count}")).collect();
        assert_eq!(blocks, 1, "inherent `impl` blocks of `{name}`:\n{}", files.join("\n"));
    }
}

/// The inherent `impl` blocks of the type in code. `impl Trait for` the type is none.
fn inherent_impls(code: &str, name: &str) -> usize {
    let is_part = |next: char| next.is_alphanumeric() || next == '_';
    let mut blocks = 0;
    for (at, word) in code.match_indices("impl") {
        let behind = &code[at + word.len()..];
        if code[..at].ends_with(is_part) || behind.starts_with(is_part) {
            continue;
        }
        let subject = behind[generics_bytes(behind)..].trim_start();
        let end = subject.find(|next| !is_part(next) && next != ':').unwrap_or(subject.len());
        let (path, rest) = subject.split_at(end);
        let head = rest.split(['{', ';']).next().unwrap_or(rest);
        let is_of_trait = head.split_whitespace().any(|word| word == "for");
        blocks += usize::from(!is_of_trait && path.rsplit("::").next() == Some(name));
    }
    blocks
}

/// How long the list of generic parameters is that `code` begins with; 0: there is none.
fn generics_bytes(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, next) in code.char_indices() {
        match next {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if next == '>' { at + 1 } else { 0 };
        }
    }
    0
}

/// The named fields in the body of a struct.
fn count_fields(body: &str) -> usize {
    let mut depth = 0_usize;
    let is_field = |line: &str| {
        let is_own = depth == 0;
        depth += line.matches(['{', '(', '<', '[']).count();
        depth = depth.saturating_sub(line.matches(['}', ')', '>', ']']).count());
        let name = line.trim().split_once(':').map(|(name, _)| name.rsplit(' ').next().unwrap_or(name));
        is_own && name.is_some_and(|name| name.chars().all(|next| next.is_alphanumeric() || next == '_'))
    };
    body.lines().map(is_field).filter(|is_field| *is_field).count()
}

mod reading {
    use super::*;

    #[test]
    fn comments_strings_and_test_code_are_left_out() {
        let source = "use a::b; // use c::d;\nlet x = \"use e::f; {\"; let q = '{'; let y: &'static str;\n\
                      #[cfg(test)]\nmod tests { use g::h; use k::l; fn f() { } }\n#[cfg(test)]\nmod more;\nuse i::j;";
        let (code, tests) = without_tests(&without_text(source));
        let found: Vec<String> = paths(&code).into_iter().map(|(path, _)| path).collect();
        assert_eq!((found, tests), (vec!["a::b".to_owned(), "i::j".to_owned()], vec!["more".to_owned()]));
    }

    #[test]
    fn trees_are_expanded_and_paths_in_code_are_found() {
        let code = "pub(crate) use crate::{a::{B, c::D as E}, f}; fn g() { super::h::i(); k::L { m: n } }\
                    pub(in crate::o) fn p() { q::r() }";
        let found: Vec<String> = paths(code).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["crate::a::B", "crate::a::c::D", "crate::f", "super::h::i", "k::L", "q::r"]);
    }

    #[test]
    fn a_cycle_of_modules_is_found_and_a_chain_is_not_a_cycle() {
        let edge = |from: &str, to: &str| (vec![from.to_owned()], vec![to.to_owned()]);
        let chain = BTreeSet::from([edge("a", "b"), edge("b", "c"), edge("a", "c")]);
        assert_eq!(on_circles(&chain), BTreeSet::new());
        let mut circle = chain;
        circle.insert(edge("c", "b"));
        let expected = BTreeSet::from([vec!["b".to_owned()], vec!["c".to_owned()]]);
        assert_eq!(on_circles(&circle), expected);
    }

    #[test]
    fn inherent_impls_are_counted() {
        let code = "impl A { fn f(&self) -> impl B + '_ { } }\nimpl<'a, T: C<D>> e::A<'a, T> { }\n\
                    impl A for F { }\nimpl G<A> for A { }\nimpl AB { }\nimplA!{}\n";
        assert_eq!((inherent_impls(code, "A"), inherent_impls(code, "F")), (2, 0));
    }

    #[test]
    fn fields_are_counted() {
        let body = "\n #[a]\n pub b: C,\n d: Option<(E, F)>,\n g: H<\n  I,\n >,\n pub(super) j: K,\n";
        assert_eq!(count_fields(body), 4);
    }
}
