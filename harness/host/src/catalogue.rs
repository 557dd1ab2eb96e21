//! What a search found: plugins with their descriptions, and what was refused with the reason.

use crate::{
    HostError, SearchPath,
    search::{nearest, same_content},
};
use equivbench_abi::descriptor::{DatasetSummary, ModelDescriptor, PluginDescriptor};
use std::path::{Path, PathBuf};

/// A plugin that could be described.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub descriptor: PluginDescriptor,
}

/// All plugins of a search, by declared name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// Plugins, in search order.
    pub plugins: Vec<Found>,
    /// Files that look like plugins and are none, and names that two different files declare.
    pub refused: Vec<HostError>,
}

impl Catalogue {
    /// Describes every candidate of a search path, with `describe` (usually [`describe_in_child`](crate::describe_in_child)).
    /// A file that cannot be described does not hide the others. If two different files declare one name, both are refused; of
    /// equal copies the first is taken.
    #[must_use]
    pub fn scan(
        search: &SearchPath,
        describe: &mut dyn FnMut(&Path) -> Result<PluginDescriptor, HostError>,
    ) -> Self {
        let mut catalogue = Self::default();
        for path in search.candidates() {
            match describe(&path) {
                Ok(descriptor) => catalogue.plugins.push(Found { path, descriptor }),
                Err(error) => catalogue.refused.push(error),
            }
        }
        catalogue.refuse_duplicates();
        catalogue
    }

    /// Adds a plugin whose path the user gave. It replaces plugins of the same name, because the user said which is meant.
    pub fn add(&mut self, path: PathBuf, descriptor: PluginDescriptor) {
        self.plugins
            .retain(|found| found.descriptor.name != descriptor.name);
        self.refused.retain(
            |error| !matches!(error, HostError::Duplicate { name, .. } if *name == descriptor.name),
        );
        self.plugins.insert(0, Found { path, descriptor });
    }

    fn refuse_duplicates(&mut self) {
        let mut kept: Vec<Found> = Vec::new();
        let mut contested: Vec<String> = Vec::new();
        for found in std::mem::take(&mut self.plugins) {
            match kept
                .iter()
                .find(|k| k.descriptor.name == found.descriptor.name)
            {
                None => kept.push(found),
                Some(first) if same_content(&first.path, &found.path) => {}
                Some(first) => {
                    let name = found.descriptor.name.clone();
                    self.refused.push(HostError::Duplicate {
                        name: name.clone(),
                        first: first.path.clone(),
                        second: found.path,
                    });
                    contested.push(name);
                }
            }
        }
        kept.retain(|found| !contested.contains(&found.descriptor.name));
        self.plugins = kept;
    }

    /// A model by its name, by the name of a plugin (its first model), or by both as `plugin:model`.
    ///
    /// # Errors
    /// A name that is not there or that two plugins use.
    pub fn model(&self, name: &str) -> Result<(&Found, &ModelDescriptor), HostError> {
        self.find(name, |d| &d.models, |m| &m.name)
    }

    /// A dataset by its name, by the name of a plugin (its first dataset), or by both as `plugin:dataset`.
    ///
    /// # Errors
    /// A name that is not there or that two plugins use.
    pub fn dataset(&self, name: &str) -> Result<(&Found, &DatasetSummary), HostError> {
        self.find(name, |d| &d.datasets, |d| &d.name)
    }

    fn find<T>(
        &self,
        name: &str,
        items: impl Fn(&PluginDescriptor) -> &Vec<T>,
        name_of: impl Fn(&T) -> &String,
    ) -> Result<(&Found, &T), HostError> {
        let (plugin, item) = name
            .split_once(':')
            .map_or((None, name), |(p, i)| (Some(p), i));
        let all = || {
            self.plugins.iter().flat_map(|found| {
                items(&found.descriptor)
                    .iter()
                    .map(move |item| (found, item))
            })
        };
        let mut exact = all().filter(|(found, i)| {
            name_of(i) == item && plugin.is_none_or(|p| found.descriptor.name == p)
        });
        if let Some(first) = exact.next() {
            return match exact.next() {
                None => Ok(first),
                Some(second) => Err(HostError::Duplicate {
                    name: name.into(),
                    first: first.0.path.clone(),
                    second: second.0.path.clone(),
                }),
            };
        }
        if let Some(first) = all().find(|(found, _)| found.descriptor.name == name) {
            return Ok(first);
        }
        if let Some(contested) = self
            .refused
            .iter()
            .find(|e| matches!(e, HostError::Duplicate { name: n, .. } if n == name))
        {
            return Err(contested.clone());
        }
        let names = all().map(|(_, item)| name_of(item).clone());
        Err(HostError::NotFound {
            name: name.into(),
            tried: self.plugins.iter().map(|p| p.path.clone()).collect(),
            nearest: nearest(name, names),
        })
    }
}
