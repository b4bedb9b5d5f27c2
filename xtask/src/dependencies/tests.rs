use super::*;

const DENY: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[licenses]
allow = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
[bans]
skip = [{ crate = "a@1.0.0", reason = "b needs it" }]
[sources]
allow-registry = ["https://example.net/index"]
"#;

fn rules() -> Rules {
    Rules::parse(DENY).unwrap()
}

fn packages(lines: &str) -> BTreeSet<Package> {
    lines.lines().map(|line| Package::parse(line).unwrap()).collect()
}

#[test]
fn a_package_is_read_from_a_line_of_the_tree() {
    let package = Package::parse("a-b v1.2.0 (proc-macro)\tMIT").unwrap();
    assert_eq!((package.name.as_str(), package.version.as_str(), package.folder), ("a-b", "1.2.0", None));
    let package = Package::parse("own v0.1.0 (/x/y z/own)\tMIT OR ISC").unwrap();
    assert_eq!(package.folder.as_deref(), Some(Path::new("/x/y z/own")));
    assert_eq!(package.licence, "MIT OR ISC");
    assert_eq!(Package::parse("a-b v1.2.0"), None);
}

#[test]
fn a_licence_is_permitted_by_what_its_expression_asks_for() {
    let is_permitted = |expression| licence::permitted(expression, &rules().licences).is_some();
    for expression in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "(MIT OR GPL-3.0) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(is_permitted(expression), "{expression}");
    }
    let refused = [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "Apache-2.0",
        "MIT OR",
        "(MIT",
        "MIT ISC",
        "ISC AND (GPL-3.0 OR Apache-2.0)",
    ];
    for expression in refused {
        assert!(!is_permitted(expression), "{expression}");
    }
}

#[test]
fn licences_and_second_versions_are_found() {
    let found = |lines| rules().check(&packages(lines), &mut Used::default());
    assert_eq!(found("a v1.0.0\tMIT\na v2.0.0\tMIT"), [""; 0], "listed in skip");
    assert_eq!(found("a v2.0.0\tMIT\na v3.0.0\tMIT").len(), 1);
    assert_eq!(found("a v1.0.0\tMIT\na v2.0.0\tMIT\na v3.0.0\tMIT").len(), 1);
    assert_eq!(found("c v1.0.0\tGPL-3.0"), ["licence: c 1.0.0: `GPL-3.0` is not allowed"]);
    assert_eq!(found("c v1.0.0\t"), ["licence: c 1.0.0: `` is not allowed"]);
}

#[test]
fn entries_without_use_are_found() {
    let mut used = Used::default();
    rules().check(&packages("a v1.0.0\tMIT\na v2.0.0\tISC"), &mut used);
    assert_eq!(
        rules().stale(&used),
        ["deny.toml: no package needs the licence Apache-2.0 WITH LLVM-exception"]
    );
    rules().check(&packages("b v1.0.0\tApache-2.0 WITH LLVM-exception"), &mut used);
    assert_eq!(rules().stale(&used), [""; 0]);
    assert_eq!(rules().stale(&Used::default()).len(), 4);
}

#[test]
fn other_sources_are_found() {
    let found = |locked: &str, lines| rules().foreign(locked, &packages(lines), Path::new("/here")).unwrap();
    let locked = |source| format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n");
    let good = locked("registry+https://example.net/index");
    assert_eq!(found(&format!("{good}checksum = \"00\""), "own v0.1.0 (/here/own)\tMIT"), [""; 0]);
    assert_eq!(found(&good, ""), ["source: a has no checksum"]);
    assert_eq!(found(&locked("git+https://example.net/a"), "").len(), 1);
    assert_eq!(found(&locked("registry+https://example.org/index"), "").len(), 1);
    assert_eq!(found(&good.replace("source", "note"), "own v0.1.0 (/there/own)\tMIT").len(), 1);
}

#[test]
fn dependencies_that_no_code_names_are_found() {
    let manifest = r#"
dependencies = { bytes = "1", a-b = "1" }
dev-dependencies = { t = "1" }
[target.'cfg(unix)'.dependencies]
u = "1"
"#;
    let manifest: Table = manifest.parse().unwrap();
    let found = |code: &str, tests: &str| unused::of_manifest(&manifest, code, tests);
    let code = "use a_b as _;\nfn f(bytes: bytes::Bytes) {}\nextern crate u;";
    assert_eq!(found(code, "use t::x;"), [""; 0]);
    let with_tests = format!("{code}\nmod tests {{ use t::x; }}");
    assert_eq!(found(&with_tests, ""), [""; 0]);
    assert_eq!(found(code, ""), ["[dev-dependencies] t"]);
    let only_words = "fn f(bytes: u8) { crate::bytes::g(); xa_b::h() }";
    let expected = ["[dependencies] u", "[dependencies] a-b", "[dependencies] bytes", "[dev-dependencies] t"];
    assert_eq!(found(only_words, "use bytes::Bytes;"), expected);
}
