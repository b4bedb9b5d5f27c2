use super::*;

const CONTROL: &str = "crates/proto/src/link/mod.rs";

fn lines(path: &str, text: &str) -> Vec<usize> {
    check(path, text, false).iter().map(|offence| offence.line).collect()
}

#[test]
fn comment_lines_have_at_most_100_columns_and_code_may_have_more() {
    let comment = |mark: &str, columns: usize| format!("    {mark} {}", "é".repeat(columns - 5 - mark.len()));
    for mark in ["//", "///", "//!"] {
        assert_eq!(lines("a.rs", &comment(mark, 100)), [0; 0], "{mark}");
        assert_eq!(lines("a.rs", &format!("\n{}", comment(mark, 101))), [2], "{mark}");
    }
    assert_eq!(lines("a.rs", &format!("let a = \"{}\"; // why", "x".repeat(110))), [0; 0]);
}

#[test]
fn a_module_head_has_at_most_300_words() {
    let head = |words: usize| "//! a |\n".repeat(words) + "\n//! not the head: a a a\n";
    assert_eq!(lines("a.rs", &head(300)), [0; 0]);
    assert_eq!(lines("a.rs", &head(301)), [1]);
}

#[test]
fn an_include_by_path_is_found() {
    assert_eq!(lines("a.rs", "mod a;\n#[path = \"../b.rs\"]\nmod b;\n"), [2]);
}

#[test]
fn a_constant_needs_a_comment_above_it_or_above_its_group() {
    let text = "\
/// In ms.
const A: u64 = 1;
pub(crate) const B: [u64; 2] = [
    1,
    2,
];
pub const C: u64 = 3;

const D: u64 = 4;
fn f() {}
const E: u64 = 5;

/// In bytes.
#[rustfmt::skip]
const F: u64 = 6;
const _: () = assert!(F > 5);
const fn g() {}

#[cfg(test)]
#[expect(lint)]
mod tests {
    const T: u64 = 7;
}
#[cfg(test)]
pub(crate) mod kit {
    const T: u64 = 7;
}
impl X {
    const H: u64 = 8;
}
";
    assert_eq!(lines(CONTROL, text), [9, 11, 29]);
    assert_eq!(check(CONTROL, text, true), []);
}

#[test]
fn constants_need_comments_in_the_control_code_alone() {
    for path in ["limits.rs", "qos/queue.rs", "scheduler/mod.rs", "recovery.rs"] {
        assert_eq!(lines(&format!("{CORE}{path}"), "const A: u64 = 1;"), [1], "{path}");
    }
    for path in ["crates/proto/src/wire/mod.rs", "crates/proto/src/linked.rs", "crates/sim/src/link/a.rs"] {
        assert_eq!(lines(path, "const A: u64 = 1;"), [0; 0], "{path}");
    }
}

#[test]
fn modules_declared_for_tests_are_tests_with_all_that_they_hold() {
    let text = "mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\n#[expect(lint)]\npub(crate) mod kit;\n";
    let of = |path: &str| test_modules(path, text).into_iter().collect::<BTreeSet<_>>();
    let tests = of("crates/x/src/link/mod.rs");
    assert!(is_test("crates/x/src/link/tests.rs", &tests));
    assert!(is_test("crates/x/src/link/tests/mtu.rs", &tests));
    assert!(is_test("crates/x/src/link/kit.rs", &tests));
    assert!(!is_test("crates/x/src/link/a.rs", &tests));
    assert!(!is_test("crates/x/src/link/tests_of.rs", &tests));
    assert!(is_test("crates/x/src/qos/queue/tests.rs", &of("crates/x/src/qos/queue.rs")));
}

#[test]
fn the_summary_ends_with_the_count() {
    let by_folder = BTreeMap::from([("crates/a/src", 2), ("crates/b/src", 0), ("xtask/src", 1)]);
    assert_eq!(summary(&by_folder, 9), "     2  crates/a/src\n     1  xtask/src\n3 offences in 9 files\n");
}
