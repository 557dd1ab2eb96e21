//! `equivbench list`, and finding plugins for the other commands.

use crate::args::{Format, ListArgs};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use equivbench_host::{
    Catalogue, DESCRIBE_LIMIT, Found, SearchPath, describe_in_child, descriptor::PluginDescriptor,
    sha256_of,
};
use equivbench_runner::plan::PluginFile;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Everything on the search path, each plugin described in a child process.
pub(crate) fn catalogue(plugin_dirs: &[PathBuf]) -> anyhow::Result<(SearchPath, Catalogue)> {
    let program = std::env::current_exe()?;
    let search = SearchPath::standard(plugin_dirs);
    let catalogue = Catalogue::scan(&search, &mut |path| {
        describe_in_child(&program, path, DESCRIBE_LIMIT)
    });
    Ok((search, catalogue))
}

/// One plugin by name or path. A name may also be that of a model or dataset inside a plugin of another name.
pub(crate) fn resolve(
    name: &str,
    search: &SearchPath,
    catalogue: &mut Catalogue,
) -> anyhow::Result<PluginFile> {
    let known = |c: &Catalogue| {
        c.model(name)
            .map(|(f, _)| f.clone())
            .or_else(|_| c.dataset(name).map(|(f, _)| f.clone()))
    };
    if let Some(found) = catalogue.plugins.iter().find(|f| f.descriptor.name == name) {
        return plugin_file(&found.clone());
    }
    let path = match search.resolve(name) {
        Ok(path) => path,
        Err(error) => {
            return known(catalogue)
                .map_err(|_| error.into())
                .and_then(|f| plugin_file(&f));
        }
    };
    let descriptor = describe_in_child(&std::env::current_exe()?, &path, DESCRIBE_LIMIT)?;
    let path = path.canonicalize().unwrap_or(path);
    catalogue.add(path.clone(), descriptor.clone());
    plugin_file(&Found { path, descriptor })
}

/// A found plugin with the hash of its file.
pub(crate) fn plugin_file(found: &Found) -> anyhow::Result<PluginFile> {
    let path = found
        .path
        .canonicalize()
        .unwrap_or_else(|_| found.path.clone());
    Ok(PluginFile {
        sha256: sha256_of(&path)?,
        path,
        descriptor: found.descriptor.clone(),
    })
}

/// `equivbench list`.
pub(crate) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let (search, catalogue) = catalogue(&args.plugin_dir)?;
    if args.format == Format::Json {
        let plugins: Vec<_> = catalogue
            .plugins
            .iter()
            .map(|f| serde_json::json!({"path": f.path, "plugin": f.descriptor}))
            .collect();
        let refused: Vec<String> = catalogue.refused.iter().map(ToString::to_string).collect();
        let document = serde_json::json!({"plugins": plugins, "refused": refused, "search_path": search.directories()});
        println!("{}", serde_json::to_string_pretty(&document)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", models(&catalogue));
    println!("{}", datasets(&catalogue));
    for found in &catalogue.plugins {
        let plugin = &found.descriptor;
        println!(
            "{} {} (devices: {}): {}",
            plugin.name,
            plugin.version,
            plugin.devices.join(", "),
            found.path.display()
        );
    }
    for refused in &catalogue.refused {
        println!("refused: {refused}");
    }
    if catalogue.plugins.is_empty() {
        println!(
            "No plugin found. Looked in:{}",
            places(search.directories())
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn places(directories: &[PathBuf]) -> String {
    directories
        .iter()
        .map(|d: &PathBuf| format!("\n  {}", Path::display(d)))
        .collect()
}

fn all<'a, T: 'a>(
    catalogue: &'a Catalogue,
    items: impl Fn(&'a PluginDescriptor) -> &'a [T],
) -> impl Iterator<Item = (&'a str, &'a T)> {
    catalogue.plugins.iter().flat_map(move |f| {
        items(&f.descriptor)
            .iter()
            .map(move |i| (f.descriptor.name.as_str(), i))
    })
}

fn models(catalogue: &Catalogue) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "model",
        "plugin",
        "size",
        "parameters",
        "tasks",
        "symmetry",
        "default data",
        "capabilities",
    ]);
    for (plugin, model) in all(catalogue, |p| &p.models) {
        for size in &model.sizes {
            table.add_row([
                model.name.clone(),
                plugin.to_owned(),
                size.name.clone(),
                size.parameters.to_string(),
                model.tasks.join(", "),
                model.symmetry.clone(),
                model.default_datasets.join(", "),
                model.capabilities.join(", "),
            ]);
        }
    }
    table
}

fn datasets(catalogue: &Catalogue) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "dataset",
        "plugin",
        "tasks",
        "carried inside",
        "about",
    ]);
    for (plugin, dataset) in all(catalogue, |p| &p.datasets) {
        let embedded = dataset.embedded.clone().unwrap_or_default();
        table.add_row([
            dataset.name.clone(),
            plugin.to_owned(),
            dataset.tasks.join(", "),
            embedded,
            dataset.about.clone(),
        ]);
    }
    table
}
