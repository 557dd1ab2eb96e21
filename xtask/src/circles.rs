//! No circles of files in `harness/`: within a crate, too, arrows only point down. Read from `use` items and paths that begin with
//! `crate` or `super`, followed through re-exports to the file that declares the item. Tests are left out.

use anyhow::{Context, Result, bail};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use syn::{Item, UseTree, Visibility, visit::Visit};

/// A path within a crate, without the leading `crate`.
type Name = Vec<String>;

/// The files of a crate by module.
struct Crate {
    uses: BTreeMap<Name, Vec<Name>>,
    /// What a module shows of others: `(module, item)` and where it comes from.
    shown: BTreeMap<(Name, String), Name>,
}

/// Checks every crate of the harness.
pub(crate) fn check() -> Result<()> {
    let harness = crate::root().join("harness");
    let mut circles = Vec::new();
    for entry in std::fs::read_dir(&harness)?.flatten() {
        let sources = entry.path().join("src");
        if sources.is_dir() {
            let found = Crate::read(&sources)?.circle();
            let name = |module: &Name| match module.is_empty() {
                true => "lib".to_owned(),
                false => module.join("::"),
            };
            if !found.is_empty() {
                let files: Vec<String> = found.iter().map(name).collect();
                circles.push(format!("{}: {}", entry.path().display(), files.join(", ")));
            }
        }
    }
    if circles.is_empty() {
        return Ok(());
    }
    circles.sort();
    bail!(
        "files that need each other in a circle:\n  {}",
        circles.join("\n  ")
    )
}

impl Crate {
    fn read(sources: &Path) -> Result<Self> {
        let mut files = Vec::new();
        collect(sources, &mut files)?;
        let mut read = Self {
            uses: BTreeMap::new(),
            shown: BTreeMap::new(),
        };
        for file in files {
            let module = module_of(&file, sources);
            let text = std::fs::read_to_string(&file)?;
            let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
            let mut paths = Paths {
                module: module.clone(),
                found: Vec::new(),
                shown: Vec::new(),
            };
            paths.visit_file(&parsed);
            for (name, path) in paths.shown {
                read.shown.insert((module.clone(), name), path);
            }
            read.uses.insert(module, paths.found);
        }
        Ok(read)
    }

    /// The module that declares what a path names: the longest beginning of the path that is a file, or where that one has it from.
    fn declares(&self, path: &[String]) -> Name {
        let at = (0..=path.len())
            .rev()
            .find(|&n| self.uses.contains_key(&path[..n]));
        let module = path[..at.unwrap_or(0)].to_vec();
        let item = path.get(module.len()).cloned().unwrap_or_default();
        match self.shown.get(&(module.clone(), item)) {
            Some(further) if further[..] != path[..] => self.declares(further),
            _ => module,
        }
    }

    /// The modules that are left when those that need nobody are taken away, again and again, from below and from above.
    fn circle(&self) -> BTreeSet<Name> {
        let needs = |module: &Name| -> BTreeSet<Name> {
            let all = self.uses[module].iter().map(|path| self.declares(path));
            // The root of a crate only shows what others declare.
            all.filter(|other| other != module && !other.is_empty())
                .collect()
        };
        let mut arrows: BTreeMap<Name, BTreeSet<Name>> = self
            .uses
            .keys()
            .filter(|m| !m.is_empty())
            .map(|m| (m.clone(), needs(m)))
            .collect();
        loop {
            let before = arrows.len();
            let needed: BTreeSet<Name> = arrows.values().flatten().cloned().collect();
            arrows.retain(|module, needs| !needs.is_empty() && needed.contains(module));
            let left: BTreeSet<Name> = arrows.keys().cloned().collect();
            arrows
                .values_mut()
                .for_each(|needs| needs.retain(|n| left.contains(n)));
            if arrows.len() == before {
                return left;
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn module_of(file: &Path, sources: &Path) -> Name {
    let relative = file
        .strip_prefix(sources)
        .unwrap_or(file)
        .with_extension("");
    let mut name: Name = relative
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if name.last().is_some_and(|last| last == "mod") || name == ["lib"] || name == ["main"] {
        name.pop();
    }
    name
}

/// Gathers the paths of a file.
struct Paths {
    module: Name,
    found: Vec<Name>,
    shown: Vec<(String, Name)>,
}

impl Paths {
    /// From the root of the crate; `None` for what is of another crate or of this file.
    fn rooted(&self, path: &[String]) -> Option<Name> {
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => {
                let mut base = self.module.clone();
                let ups = path.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().saturating_sub(ups));
                Some([&base[..], &path[ups..]].concat())
            }
            _ => None,
        }
    }

    fn flatten(tree: &UseTree, before: &[String], out: &mut Vec<(String, Name)>) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => {
                Self::flatten(&path.tree, &with(path.ident.to_string()), out);
            }
            UseTree::Name(name) => {
                out.push((name.ident.to_string(), with(name.ident.to_string())));
            }
            UseTree::Rename(rename) => {
                out.push((rename.rename.to_string(), with(rename.ident.to_string())));
            }
            UseTree::Glob(_) => out.push(("*".into(), before.to_vec())),
            UseTree::Group(group) => {
                group
                    .items
                    .iter()
                    .for_each(|tree| Self::flatten(tree, before, out));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let is_test = |attributes: &[syn::Attribute]| {
            let text = |a: &syn::Attribute| a.meta.require_list().map(|l| l.tokens.to_string());
            attributes
                .iter()
                .any(|a| a.path().is_ident("cfg") && text(a).is_ok_and(|t| t == "test"))
        };
        match item {
            Item::Mod(module) if is_test(&module.attrs) => {}
            Item::Use(of) => {
                let mut all = Vec::new();
                Self::flatten(&of.tree, &[], &mut all);
                for (name, path) in all {
                    if let Some(rooted) = self.rooted(&path) {
                        self.found.push(rooted);
                    } else if !matches!(of.vis, Visibility::Inherited) {
                        let own = if path[0] == "self" {
                            &path[1..]
                        } else {
                            &path[..]
                        };
                        self.shown.push((name, [&self.module[..], own].concat()));
                    }
                }
            }
            _ => syn::visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Name = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.found.extend(self.rooted(&parts));
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = Crate::read(folder.path()).unwrap().circle();
        found.iter().map(|module| module.join("::")).collect()
    }

    #[test]
    fn a_circle_through_a_re_export_is_found_and_a_chain_is_none() {
        let lib = (
            "lib.rs",
            "mod a; mod b; mod c; pub use a::A; pub use b::{B, Other};",
        );
        let (a, c) = (
            ("a.rs", "use crate::B; pub struct A;"),
            ("c.rs", "use crate::{A, B};"),
        );
        let b = |text| ("b.rs", text);
        let chain = b("pub struct B; #[cfg(test)] mod tests { use crate::A; }");
        assert!(circle(&[lib, a, c, chain]).is_empty());
        assert_eq!(
            circle(&[lib, a, c, b("pub struct B; fn f() -> crate::A { todo!() }")]),
            ["a", "b"]
        );
    }

    #[test]
    fn a_folder_may_use_its_own_files_and_they_not_it() {
        let lib = ("lib.rs", "mod m;");
        let own = ("m/mod.rs", "mod x; pub use x::X; fn f(_: X) {}");
        assert!(circle(&[lib, own, ("m/x.rs", "pub struct X;")]).is_empty());
        let up = ("m/x.rs", "use super::g; pub struct X;");
        let both = (
            "m/mod.rs",
            "mod x; use self::x::X; fn g(_: super::m::x::X) {}",
        );
        assert_eq!(circle(&[lib, both, up]), ["m", "m::x"]);
    }
}
