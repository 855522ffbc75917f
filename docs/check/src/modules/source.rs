//! Reader for the uses between a crate's modules: `use` trees, and paths in expressions, types, signatures
//! and macros. It finds the modules as the compiler does, starting from `lib.rs`. Code that is compiled only
//! for tests is left out.

use std::collections::BTreeSet;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};

use crate::{Fault, Pattern, pattern};

/// Path that leads out of its module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    /// File that contains the path.
    pub file: String,
    /// Module that contains the path, from the crate's root.
    pub from: Vec<String>,
    /// Target of the path, from the crate's root; empty if it leads to another crate.
    pub to: Vec<String>,
    /// Name of the other crate, or empty.
    pub external: String,
}

/// Modules of a crate and their uses.
pub(super) struct Sources {
    /// Paths of all modules from the crate's root.
    pub modules: BTreeSet<Vec<String>>,
    /// Uses of other modules and of other crates.
    pub uses: BTreeSet<Use>,
}

/// Reads the crate whose `lib.rs` is in `directory`.
///
/// # Errors
/// Returns a fault for the first file that is missing or is not Rust.
pub(super) fn sources(directory: &str, read: impl Fn(&str) -> Option<String>) -> Result<Sources, Fault> {
    let (mut modules, mut uses) = (BTreeSet::new(), BTreeSet::new());
    let mut next = vec![Vec::new()];
    while let Some(module) = next.pop() {
        let (file, text) = candidates(directory, &module)
            .into_iter()
            .find_map(|file| read(&file).map(|text| (file, text)))
            .ok_or_else(|| {
                Fault::new(directory, 0, format!("has no file for the module {}", module.join("::")))
            })?;
        let syntax = syn::parse_file(&text)
            .map_err(|error| Fault::new(&file, 0, format!("cannot be read as Rust: {error}")))?;
        let mut reader = Reader { module: module.clone(), paths: Vec::new(), children: Vec::new() };
        reader.visit_file(&syntax);
        next.extend(reader.children);
        // Paths in the root itself (links in its docs, re-exports) are not counted as uses of a module.
        let paths = reader.paths.into_iter().filter(|(from, _)| !from.is_empty());
        uses.extend(paths.filter_map(|(from, path)| resolve(&file, from, path)));
        modules.insert(module);
    }
    Ok(Sources { modules, uses })
}

fn candidates(directory: &str, module: &[String]) -> Vec<String> {
    let path = [&[directory.to_owned()], module].concat().join("/");
    if module.is_empty() {
        vec![format!("{path}/lib.rs")]
    } else {
        vec![format!("{path}.rs"), format!("{path}/mod.rs")]
    }
}

/// Resolves a path. If its first segment is any other name in scope, the path is taken for one of another
/// crate.
fn resolve(file: &str, from: Vec<String>, path: Vec<String>) -> Option<Use> {
    let (mut base, mut external) = (Vec::new(), String::new());
    let mut rest = &path[..];
    match path.first()?.as_str() {
        "crate" => rest = &path[1..],
        "self" => (base, rest) = (from.clone(), &path[1..]),
        "super" => {
            base = from.clone();
            while let Some(("super", after)) =
                rest.split_first().map(|(first, after)| (first.as_str(), after))
            {
                base.pop();
                rest = after;
            }
        }
        name => (external, rest) = (name.to_owned(), &[]),
    }
    let to = [&base, rest].concat();
    Some(Use { file: file.to_owned(), from, to, external })
}

struct Reader {
    module: Vec<String>,
    paths: Vec<(Vec<String>, Vec<String>)>,
    children: Vec<Vec<String>>,
}

impl Reader {
    fn found(&mut self, path: Vec<String>) {
        self.paths.push((self.module.clone(), path));
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
            // `use a::{self}` names `a`.
            UseTree::Name(name) if name.ident == "self" && !before.is_empty() => self.found(before.to_vec()),
            UseTree::Name(name) => self.found(with(name.ident.to_string())),
            UseTree::Rename(rename) => self.found(with(rename.ident.to_string())),
            UseTree::Glob(_) => self.found(with("*".to_owned())),
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        match &item.content {
            Some(_) => visit::visit_item_mod(self, item),
            None => self.children.push(self.module.clone()),
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    /// Skips `pub(in path)`, which uses nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.found(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        static PATH: Pattern = Pattern::new(|| pattern(r"\w+(?:\s*::\s*\w+)+"));
        for found in PATH.find_iter(&called.tokens.to_string()) {
            self.found(found.as_str().split("::").map(|part| part.trim().to_owned()).collect());
        }
        visit::visit_macro(self, called);
    }

    // Attributes name derives and serde's functions as text, which this reader cannot resolve.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn for_tests(attributes: &[Attribute]) -> bool {
    let test = |attribute: &Attribute| {
        let condition = attribute.path().is_ident("cfg").then(|| attribute.parse_args::<syn::Path>().ok());
        condition.flatten().is_some_and(|condition| condition.is_ident("test"))
            || attribute.path().is_ident("test")
    };
    attributes.iter().any(test)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
