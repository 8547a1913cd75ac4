//! All mutants in one build: each function that mutants change contains the original body and theirs.
//!
//! ```text
//! fn has_room(&self, end: u64) -> bool {
//!     match crate::mutant::active() {
//!         12 | 89 => { the body of these mutants }
//!         _ => { the original body }
//!     }
//! }
//! ```
//!
//! An environment variable selects the mutant when a process starts. An edit that changes more than bodies of functions, such as
//! a constant, cannot be selected at run time. Such a mutant gets a build of its own.

use super::mutant::Mutant;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// The environment variable with the name of a mutant. Processes that link the library end at once if it names none.
pub const VARIABLE: &str = "SHMPIPE_MUTANT";

/// Texts of files, by their path in the repository.
pub type Texts = BTreeMap<PathBuf, String>;

/// The sources with all mutants.
#[derive(Debug, Default)]
pub struct Woven {
    /// The files that differ from the repository's.
    pub texts: Texts,
    /// The mutants that need a build of their own: their files, without other mutants.
    pub alone: BTreeMap<String, Texts>,
}

/// Weaves all mutants into the library's sources. Fails if one does not apply.
pub fn weave(repository: &Path, mutants: &[Mutant]) -> Result<Woven, String> {
    let read = |file: &Path| {
        fs::read_to_string(repository.join(file)).map_err(|e| format!("{}: {e}", file.display()))
    };
    let (mut originals, mut woven) = (BTreeMap::new(), Woven::default());
    // Of each file, the bodies of each function: text, and the numbers of the mutants.
    let mut variants: BTreeMap<PathBuf, Vec<BTreeMap<String, BTreeSet<usize>>>> = BTreeMap::new();
    for (mutant, number) in mutants.iter().zip(1..) {
        let applied =
            mutant.apply(&read).map_err(|reason| format!("{}: does not apply: {reason}", mutant.name))?;
        let mut changed = vec![];
        for (file, text) in &applied {
            if !originals.contains_key(file) {
                originals.insert(
                    file.clone(),
                    Source::parse(read(file)?).map_err(|e| format!("{}: {e}", file.display()))?,
                );
            }
            let source = Source::parse(text.clone())
                .map_err(|e| format!("{}: {}: {e}", mutant.name, file.display()))?;
            changed.push((file, originals[file].changed_bodies(&source).filter(|_| file.starts_with("src"))));
        }
        if changed.iter().any(|(_, bodies)| bodies.is_none()) {
            woven.alone.insert(mutant.name.clone(), applied.clone());
            continue;
        }
        for (file, bodies) in changed {
            let functions = originals[file].bodies.len();
            let variants = variants.entry(file.clone()).or_insert_with(|| vec![BTreeMap::new(); functions]);
            for (function, body) in bodies.into_iter().flatten() {
                variants[function].entry(body).or_default().insert(number);
            }
        }
    }
    for (file, variants) in &variants {
        woven.texts.insert(file.clone(), originals[file].with(variants));
    }
    let library = PathBuf::from("src/lib.rs");
    let text = match woven.texts.remove(&library) {
        Some(text) => text,
        None => read(&library)?,
    };
    woven.texts.insert(library, text + "\nmod mutant;\n");
    woven.texts.insert("src/mutant.rs".into(), switch(mutants.iter().map(|mutant| mutant.name.as_str())));
    Ok(woven)
}

/// The module that selects a mutant, by its number in `names`, from 1.
fn switch<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    format!(
        r#"//! The mutant that runs.

use std::sync::atomic::{{AtomicU32, Ordering}};

static ACTIVE: AtomicU32 = AtomicU32::new(0);

#[inline(always)]
pub(crate) fn active() -> u32 {{
    ACTIVE.load(Ordering::Relaxed)
}}

/// Runs before `main`: later, a harness counts instructions and makes system calls fail.
#[used]
#[unsafe(link_section = ".init_array")]
static SELECT: extern "C" fn() = select;

extern "C" fn select() {{
    let Some(name) = std::env::var_os("{VARIABLE}") else {{ return }};
    match NAMES.iter().position(|known| name == *known) {{
        Some(at) => ACTIVE.store(at as u32 + 1, Ordering::Relaxed),
        None => std::process::abort(),
    }}
}}

const NAMES: &[&str] = &{names:?};
"#
    )
}

/// A source file.
#[derive(Debug)]
struct Source {
    text: String,
    /// The bodies of its functions, with their braces, in order.
    bodies: Vec<Range<usize>>,
}

impl Source {
    fn parse(text: String) -> Result<Self, String> {
        let file = syn::parse_file(&text).map_err(|e| format!("line {}: {e}", e.span().start().line))?;
        let mut bodies = Bodies(vec![]);
        bodies.visit_file(&file);
        Ok(Source { text, bodies: bodies.0 })
    }

    /// The numbers and texts of the bodies that differ in `other`. None if anything else differs.
    fn changed_bodies(&self, other: &Source) -> Option<Vec<(usize, String)>> {
        let functions = || self.bodies.iter().zip(&other.bodies);
        if self.between() != other.between() {
            return None;
        }
        let bodies =
            functions().map(|(ours, theirs)| (&self.text[ours.clone()], &other.text[theirs.clone()]));
        Some(
            bodies
                .enumerate()
                .filter(|(_, (a, b))| a != b)
                .map(|(at, (_, body))| (at, body.to_owned()))
                .collect(),
        )
    }

    /// The text before, between and after the bodies.
    fn between(&self) -> Vec<&str> {
        let ends = [0].into_iter().chain(self.bodies.iter().map(|body| body.end));
        let starts = self.bodies.iter().map(|body| body.start).chain([self.text.len()]);
        ends.zip(starts).map(|(end, start)| &self.text[end..start]).collect()
    }

    /// The text, in which each function selects one of its variants.
    fn with(&self, variants: &[BTreeMap<String, BTreeSet<usize>>]) -> String {
        let between = self.between();
        let mut text = between[0].to_owned();
        for ((body, variants), after) in self.bodies.iter().zip(variants).zip(&between[1..]) {
            let original = &self.text[body.clone()];
            if variants.is_empty() {
                text.push_str(original);
            } else {
                text.push_str("{ match crate::mutant::active() {\n");
                for (variant, numbers) in variants {
                    let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
                    text.push_str(&format!("{} => {variant}\n", numbers.join(" | ")));
                }
                text.push_str(&format!("_ => {original}\n}} }}"));
            }
            text.push_str(after);
        }
        text
    }
}

/// Collects the bodies of functions whose body may be a `match` at run time.
struct Bodies(Vec<Range<usize>>);

impl Bodies {
    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        // The arms of a `match` have one type, but two closures never do.
        let is_opaque = match &signature.output {
            syn::ReturnType::Default => false,
            syn::ReturnType::Type(_, kind) => {
                let mut found = Opaque(false);
                found.visit_type(kind);
                found.0
            }
        };
        if signature.constness.is_none() && !is_opaque {
            let braces = body.brace_token.span;
            self.0.push(braces.open().byte_range().start..braces.close().byte_range().end);
        }
    }
}

impl<'a> Visit<'a> for Bodies {
    // None visits the body: what is inside changes with it.
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.add(&function.sig, &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
    }

    fn visit_trait_item_fn(&mut self, function: &'a syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
    }
}

/// Whether a type contains `impl Trait`.
struct Opaque(bool);

impl<'a> Visit<'a> for Opaque {
    fn visit_type_impl_trait(&mut self, kind: &'a syn::TypeImplTrait) {
        self.0 = true;
        visit::visit_type_impl_trait(self, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "const A: u8 = 1;\nfn f() -> u8 { A }\nimpl S { fn g(&self) -> u8 { f() + 2 } }\nconst fn h() -> u8 { 7 }\nfn i() -> impl Fn() { || () }\n";

    fn source(text: &str) -> Source {
        Source::parse(text.to_owned()).unwrap()
    }

    /// What changes when `find` is replaced.
    fn changed(find: &str, replace: &str) -> Option<Vec<(usize, String)>> {
        assert!(TEXT.contains(find));
        source(TEXT).changed_bodies(&source(&TEXT.replacen(find, replace, 1)))
    }

    #[test]
    fn a_change_of_bodies_is_found() {
        assert_eq!(changed("+ 2", "+ 3"), Some(vec![(1, "{ f() + 3 }".to_owned())]));
        assert_eq!(changed("{ A }", "{ fn inner() {} A + 1 }").unwrap()[0].0, 0);
    }

    #[test]
    fn a_change_of_anything_else_needs_its_own_build() {
        for (find, replace) in [
            ("= 1", "= 2"),
            ("fn g", "fn k"),
            ("{ 7 }", "{ 8 }"),
            ("|| ()", "|| f()"),
            ("const fn h", "fn j() {}\nconst fn h"),
        ] {
            assert_eq!(changed(find, replace), None, "{find}");
        }
    }

    #[test]
    fn a_function_selects_the_body_of_its_mutant() {
        let mut variants = vec![BTreeMap::new(), BTreeMap::new()];
        variants[0].insert("{ 9 }".to_owned(), BTreeSet::from([3, 5]));
        let woven = source(TEXT).with(&variants);
        let expected = "{ match crate::mutant::active() {\n3 | 5 => { 9 }\n_ => { A }\n} }";
        assert_eq!(woven, TEXT.replacen("{ A }", expected, 1));
        assert_eq!(source(&woven).bodies.len(), 2);
    }

    #[test]
    fn the_switch_compiles() {
        syn::parse_file(&switch(["a/b", "c/d"].into_iter())).unwrap();
    }
}
