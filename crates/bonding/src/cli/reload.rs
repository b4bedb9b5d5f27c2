//! Reading a daemon's file again, while it runs: by SIGHUP or `bondctl reload`; and what `bondctl`
//! says of it.
//!
//! Contract: a file with a mistake changes nothing, and every mistake is told, in the log and in
//! the answer to `bondctl`. Otherwise both have a line for each change and each key that waits.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::{Loaded, Problems};
use crate::engine::Running;
use crate::engine::command::{Command, Ordered, Reloaded, Reply};
use crate::engine::reload::NewPlan;

/// A plan, and the file's warnings.
pub(super) type Read = (NewPlan, Vec<String>);

/// The file that a daemon runs on.
#[derive(Debug)]
pub(super) struct Configuration {
    /// `None`: built-in defaults.
    file: Option<PathBuf>,
    read: fn(&Path) -> Result<Read, Problems>,
}

impl Configuration {
    /// The file that was loaded at the start; `read` reads it again.
    pub(super) fn new<T>(loaded: &Loaded<T>, read: fn(&Path) -> Result<Read, Problems>) -> Self {
        let file = (!loaded.file.is_empty()).then(|| PathBuf::from(&loaded.file));
        Self { file, read }
    }

    /// Reads the file, and has the engine run on it.
    ///
    /// # Errors
    /// Why nothing was changed, for a person: a line for each mistake.
    pub(super) fn reload(&self, running: &mut dyn Running) -> Result<Reloaded, String> {
        let start = Instant::now();
        let outcome = self.try_reload(running);
        let took = start.elapsed();
        match &outcome {
            Ok(done) => {
                for line in &done.warnings {
                    tracing::warn!("{line}");
                }
                for line in &done.changed {
                    tracing::info!("reload: {line}");
                }
                for key in &done.at_next_start {
                    tracing::warn!("reload: {key} takes effect at the next start");
                }
                let (changed, at_next_start) = (done.changed.len(), done.at_next_start.len());
                tracing::info!(changed, at_next_start, ?took, "read the configuration again");
            }
            Err(why) => {
                for line in why.lines() {
                    tracing::error!("{line}");
                }
            }
        }
        outcome
    }

    fn try_reload(&self, running: &mut dyn Running) -> Result<Reloaded, String> {
        let Some(file) = &self.file else {
            return Err("this side runs without a configuration file: there is none to read again".to_owned());
        };
        let refuse = |why: String| format!("{why}\n{}: nothing was changed", file.display());
        let (plan, warnings) = (self.read)(file).map_err(|problems| refuse(problems.to_string()))?;
        let Reply::Reloaded(done) = running.command(Command::Reload(plan)).map_err(refuse)? else {
            return Err("the engine answers another question".to_owned());
        };
        Ok(Reloaded { warnings, ..done })
    }
}

/// What a reload did, for people.
pub(super) fn render(done: &Reloaded) -> String {
    let mut text = String::new();
    for line in &done.changed {
        text.push_str(&format!("{line}\n"));
    }
    for key in &done.at_next_start {
        text.push_str(&format!("{key}: takes effect at the next start\n"));
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}

/// What an order did, for people.
pub(super) fn render_order(done: &Ordered) -> String {
    let Ordered { name, role, priority, by_hand } = done;
    let until = if *by_hand { "until a reload or the next start" } else { "as the file says" };
    format!("{name}: {role}, priority {priority}, {until}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::client_from_text;
    use crate::status::{Role, Snapshot};

    /// Notes the commands that it gets.
    #[derive(Default)]
    struct Engine(Vec<Command>);

    impl Running for Engine {
        fn snapshot(&self) -> Snapshot {
            crate::status::tests::snapshot(Role::Client, Vec::new())
        }

        fn command(&mut self, command: Command) -> Result<Reply, String> {
            self.0.push(command);
            Ok(Reply::Reloaded(Reloaded { changed: vec!["a: 1 → 2".to_owned()], ..Reloaded::default() }))
        }
    }

    fn read(file: &Path) -> Result<Read, Problems> {
        let loaded = crate::config::load_client(file)?;
        Ok((NewPlan::Client(Box::new(loaded.config.plan())), loaded.warning_lines().collect()))
    }

    const TEXT: &str = "[server]\nhost = \"192.0.2.1\"\n[[link]]\ninterface = \"a\"\nsecurity = \"plain\"\n";

    #[test]
    fn a_file_with_mistakes_reaches_no_engine_and_each_mistake_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.toml");
        let loaded = client_from_text(&file.display().to_string(), TEXT).unwrap();
        let configuration = Configuration::new(&loaded, read);
        let mut engine = Engine::default();
        std::fs::write(&file, TEXT.replace("plain", "plane").replace("interface", "interfaze")).unwrap();
        let why = configuration.reload(&mut engine).unwrap_err();
        assert_eq!(why.matches(&format!("{}:", file.display())).count(), 4, "{why}");
        assert!(why.ends_with("nothing was changed") && engine.0.is_empty(), "{why}");
        std::fs::remove_file(&file).unwrap();
        assert!(configuration.reload(&mut engine).unwrap_err().contains("cannot be read"));

        std::fs::write(&file, format!("{TEXT}metered = true\n")).unwrap();
        let done = configuration.reload(&mut engine).unwrap();
        assert_eq!((done.changed.len(), done.warnings.len(), engine.0.len()), (1, 1, 1), "{done:?}");
    }

    #[test]
    fn built_in_defaults_are_not_read_again() {
        let loaded = Loaded { config: (), file: String::new(), warnings: Vec::new() };
        let mut engine = Engine::default();
        let why = Configuration::new(&loaded, read).reload(&mut engine).unwrap_err();
        assert!(why.contains("without a configuration file") && engine.0.is_empty(), "{why}");
    }

    #[test]
    fn a_reload_is_told_line_by_line() {
        assert_eq!(render(&Reloaded::default()), "nothing has changed\n");
        let done = Reloaded {
            changed: vec!["[tcp] split: auto → all".to_owned()],
            at_next_start: vec!["[tunnel]".to_owned()],
            warnings: Vec::new(),
        };
        assert_eq!(render(&done), "[tcp] split: auto → all\n[tunnel]: takes effect at the next start\n");
    }
}
