//! The bucket that the variables name, asked as an engine asks it: listings and facts of objects.
//!
//! Called by the commands that compare or plan (`plan`, `verify`). It changes nothing, and asks for no object's bytes.

use crate::commands::output;
use crate::credentials;
use crate::folder_files::Root;
use crate::mirror::{Mirror, MirrorOptions};
use crate::process::assemble::{Assembled, Given, assemble};
use crate::process::first_word::NotStarted;
use ossc_conf::{Config, DEFAULT_PATH, Settings};
use ossc_sign::Secret;
use std::path::{Path, PathBuf};

/// See the module.
pub struct Bucket {
    pub settings: Settings,
    pub config: Config,
    /// Lists; its work is the one that asks.
    pub mirror: Mirror,
}

impl Bucket {
    /// Of the environment, with these in the place of variables. MODEL_DIR need not be there.
    ///
    /// # Errors
    /// The REASON of an engine that cannot start, in words.
    pub fn of_environment(model_dir: Option<&Path>, oss_path: Option<&str>) -> Result<Bucket, String> {
        let own = std::env::var_os("OSSC_CONFIG").filter(|path| !path.is_empty());
        let path = own.as_ref().map_or_else(|| PathBuf::from(DEFAULT_PATH), PathBuf::from);
        let (config, warnings) = Config::load(&path, own.is_some()).map_err(|reason| reason.to_string())?;
        warnings.iter().for_each(|warning| output::tell(&format!("{}: {warning}", path.display())));
        let mut variables = credentials::of_environment();
        let model_dir = model_dir.map(|folder| folder.display().to_string());
        let given = [("MODEL_DIR", model_dir.as_deref()), ("OSS_PATH", oss_path)];
        for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            variables.insert(name.into(), Secret::new(value.into()));
        }
        // Nothing is put there.
        variables.entry("MODEL_DIR".into()).or_insert_with(|| Secret::new("/".into()));
        let settings =
            Settings::from_lookup(|name| credentials::value(&variables, name)).map_err(|reason| reason.to_string())?;
        let given = Given {
            variables: &variables,
            settings: &settings,
            config: &config,
            journal: None,
            id: (0, 0),
            old_store: -1,
        };
        let Assembled { work, store, .. } = assemble(&given, &|_| {}).map_err(|why| match why {
            NotStarted::Reason(why) => why,
            NotStarted::OtherEngine => "another engine runs".into(),
        })?;
        let root = root(&settings.model_dir)?;
        let (location, prefix) = (settings.location.to_string(), settings.location.prefix().to_string());
        let mirror = Mirror::new(root, work, store, location, prefix, MirrorOptions::of(&config));
        Ok(Bucket { settings, config, mirror })
    }
}

/// MODEL_DIR, or the nearest folder above it that is there.
///
/// # Errors
/// It cannot be opened, in words.
pub fn root(model_dir: &Path) -> Result<Root, String> {
    let folder = nearest(model_dir);
    Root::open(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

/// The nearest folder above that is there, or the path itself.
pub fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}
