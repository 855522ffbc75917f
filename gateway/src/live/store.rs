//! Stores the running snapshot and carries out every change of the configuration. Changes run one after another
//! under a lock; requests read the snapshot without a lock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::{info, warn};

use super::cases::try_on;
use super::change::{Applied, Change, ChangeError, Persistence, Revision};
use super::compile::{CompileInput, compile};
use super::snapshot::Snapshot;
use crate::config::{Config, ConfigError, Parsed, PathFault, Source, difference};
use crate::live::carry_over;
use crate::live::compile::files::files;
use crate::live::compile::resolve::{Resolution, resolve};
use crate::live::persist::{KeepError, keep};
use crate::live::retire::{forget, tell};
use crate::live::watches::Watches;
use crate::policy::signed_cookie::CookieKey;
use crate::telemetry::Metrics;
use crate::upstream::ResolvedAddresses;
use crate::util::secrets::Secrets;

// ANCHOR: store
/// Store of the running snapshot, with which every new request starts.
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// State that a change reads and updates. The lock makes changes happen one after another.
    state: Mutex<StoreState>,
    source: Source,
    /// Configuration that the process started with. Some of its keys stay in effect until the process ends.
    started_with: Config,
    metrics: Arc<Metrics>,
    cookie_key: Arc<CookieKey>,
    watches: Watches,
    /// Part of every entity tag that is different in each process.
    process: String,
}

/// Text, file state and history of the running configuration.
struct StoreState {
    parsed: Parsed,
    /// Text of the file when the gateway last read or wrote it.
    in_file: Option<String>,
    /// True if the running configuration should be in the file, but could not be written to it.
    unwritten: bool,
    /// Earlier revisions and the running one; the newest is last.
    history: VecDeque<Arc<Revision>>,
}
// ANCHOR_END: store

/// Returns the key that signs cookies: from its environment variable, or a random one if the variable is not
/// set.
fn cookie_key(source: &Source, parsed: &Parsed) -> Result<CookieKey, ConfigError> {
    let variable = &parsed.config.proxy.cookie_key_env;
    CookieKey::from_variable(variable).map_err(|error| {
        let detail = format!("cannot make a key for cookies: {error}; set the variable {variable} to a key");
        source.locate(parsed, vec![PathFault { path: "proxy/cookie_key_env".to_owned(), detail }])
    })
}

impl Store {
    /// Creates a store that runs `parsed`, the configuration that was read from `source`.
    ///
    /// # Errors
    /// Returns an error if a name of a backend does not resolve, if the configuration does not compile, if a
    /// `[[tests]]` entry fails, or if the system has no random bytes for the key that signs cookies.
    pub fn new(
        source: Source,
        parsed: Parsed,
        names: Resolution,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        let cookie_key = Arc::new(cookie_key(&source, &parsed)?);
        let compiled = resolve(&parsed.config, names, &ResolvedAddresses::new()).and_then(|resolved| {
            let (metrics, cookie_key) = (&metrics, &cookie_key);
            let secrets = secrets(names);
            let resolved = resolved.into();
            let with = CompileInput { metrics, cookie_key, resolved, before: None, revision: 1, secrets };
            compile(&parsed.config, &with)
        });
        let tried = compiled.and_then(|snapshot| try_on(&snapshot).map(|()| snapshot));
        let snapshot = tried.map_err(|faults| source.locate(&parsed, faults))?;
        snapshot.take_effect(&metrics);
        metrics.last_reload_successful.set(1);
        let started = SystemTime::now();
        let first = Revision {
            number: snapshot.revision,
            at: started,
            by: "start".to_owned(),
            changes: Vec::new(),
            text: parsed.text.clone(),
        };
        let in_file = Some(parsed.text.clone());
        let started_with = parsed.config.clone();
        Ok(Store {
            watches: Watches::new(&snapshot),
            current: ArcSwap::from_pointee(snapshot),
            state: Mutex::new(StoreState {
                parsed,
                in_file,
                unwritten: false,
                history: VecDeque::from([Arc::new(first)]),
            }),
            source,
            started_with,
            metrics,
            cookie_key,
            process: format!("{:x}", started.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()),
        })
    }

    // ANCHOR: load
    /// Returns the current snapshot. A request keeps its snapshot to the end, even if a change happens
    /// meanwhile.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
    // ANCHOR_END: load

    /// Returns the entity tag of the revision, without the quotes. The tag differs from the tags of other
    /// revisions and of other processes (RFC 9110 8.8.3).
    pub fn etag(&self, snapshot: &Snapshot) -> String {
        format!("{}-{}", self.process, snapshot.revision)
    }

    /// Returns the source of the configuration.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Returns the channels that background services subscribe to.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Returns the revisions to which a rollback is possible, and the running revision; the newest is last.
    pub fn history(&self) -> Vec<Arc<Revision>> {
        self.state.lock().history.iter().cloned().collect()
    }

    // ANCHOR: change
    /// Changes the configuration completely or not at all: `edit` changes its JSON. When this function returns,
    /// every new request starts with the new configuration.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn change<R>(
        &self,
        change: Change<'_>,
        edit: impl FnOnce(&Config, &mut Value) -> Result<(), R>,
    ) -> Result<Applied, ChangeError<R>> {
        let mut state = self.state.lock();
        let writable = self.begin(&mut state, change)?;
        let mut json = state.parsed.config.to_json();
        edit(&state.parsed.config, &mut json).map_err(ChangeError::Refused)?;
        let parsed = self.source.change(&state.parsed, &json).map_err(ChangeError::Invalid)?;
        self.replace(&mut state, parsed, change, writable)
    }
    // ANCHOR_END: change

    /// Rolls back to the configuration of an earlier `revision`.
    ///
    /// # Errors
    /// See [`ChangeError`]. If the revision is not in the history, the error is `Refused` with the number of
    /// the oldest revision that is.
    pub fn roll_back(&self, change: Change<'_>, revision: u64) -> Result<Applied, ChangeError<u64>> {
        let mut state = self.state.lock();
        let writable = self.begin(&mut state, change)?;
        let oldest = state.history.front().map_or(0, |oldest| oldest.number);
        let earlier = state.history.iter().find(|earlier| earlier.number == revision);
        let text = earlier.ok_or(ChangeError::Refused(oldest))?.text.clone();
        let earlier = self.source.parse(&text).map_err(ChangeError::Invalid)?;
        let json = carry_over::rolled_back_to(&earlier.config, &state.parsed.config, revision);
        let parsed = self.source.change(&earlier, &json).map_err(ChangeError::Invalid)?;
        self.replace(&mut state, parsed, change, writable)
    }

    /// Reads the source again and makes its configuration the running one, even if it is unchanged. Names of
    /// backends are resolved again. The file is not written.
    ///
    /// # Errors
    /// See [`ChangeError`]; the error is never `Refused`.
    pub fn reload(&self, change: Change<'_>) -> Result<Applied, ChangeError<Infallible>> {
        let mut state = self.state.lock();
        self.is_expected(change)?;
        let parsed = self.read(&state).map_err(ChangeError::Invalid)?;
        let read = parsed.text.clone();
        self.take_over(&mut state, parsed, read, change.by, Resolution::Resolved)
            .map_err(ChangeError::Invalid)
    }

    /// Makes the file's configuration the running one, if the file has changed since it was last read or
    /// written.
    ///
    /// # Errors
    /// Returns every fault of the file.
    pub fn follow_file(&self) -> Result<(), ConfigError> {
        self.catch_up(&mut self.state.lock())
    }

    /// Returns every file that the running configuration depends on, except the configuration file itself.
    pub fn files(&self) -> Vec<PathBuf> {
        files(&self.load())
    }

    /// Reads certificates, keys and users again. The configuration and its revision stay the same.
    ///
    /// # Errors
    /// Returns the faults of files that cannot be used. Then nothing changes.
    pub fn follow_files(&self) -> Result<(), ConfigError> {
        let state = self.state.lock();
        let before = self.load();
        let with = self.surroundings(&before, (*before.resolved).clone(), before.revision);
        let next = compile(&state.parsed.config, &with);
        self.swap(Arc::new(next.map_err(|faults| self.source.locate(&state.parsed, faults))?));
        Ok(())
    }

    /// Takes over `news`, the new addresses of backend names. The configuration and its revision stay the same.
    pub fn follow_names(&self, news: ResolvedAddresses) {
        let state = self.state.lock();
        let before = self.load();
        let mut resolved = (*before.resolved).clone();
        // A name may have been removed from the configuration in the meantime, so its addresses are dropped.
        resolved.extend(news.into_iter().filter(|(name, _)| before.resolved.contains_key(name)));
        let with = self.surroundings(&before, resolved, before.revision);
        match compile(&state.parsed.config, &with) {
            Ok(next) => self.swap(Arc::new(next)),
            Err(faults) => {
                let error = self.source.locate(&state.parsed, faults);
                warn!("names of backends resolve to other addresses, which cannot be used: {error}");
            }
        }
    }

    fn surroundings<'s>(
        &'s self,
        before: &'s Snapshot,
        resolved: ResolvedAddresses,
        revision: u64,
    ) -> CompileInput<'s> {
        CompileInput {
            metrics: &self.metrics,
            cookie_key: &self.cookie_key,
            resolved: Arc::new(resolved),
            before: Some(before),
            revision,
            secrets: Secrets::required(),
        }
    }

    /// Makes `next` the snapshot with which new requests start.
    fn swap(&self, next: Arc<Snapshot>) {
        let before = self.current.swap(next.clone());
        next.take_effect(&self.metrics);
        tell(&before, &next);
        self.watches.send(&next);
        forget(&self.metrics, &before, &next);
    }

    /// Tries again to write the running configuration to its file, if an earlier write failed.
    pub fn write_again(&self) {
        let mut state = self.state.lock();
        if state.unwritten && !self.is_edited(&state) {
            let parsed = state.parsed.clone();
            if self.write(&mut state, &parsed).is_ok() {
                info!("the change that could not be written before is in the file now");
            }
        }
    }

    fn catch_up(&self, state: &mut StoreState) -> Result<(), ConfigError> {
        let read = self.read(state)?;
        if state.in_file.as_ref() == Some(&read.text) {
            return Ok(());
        }
        let before = state.in_file.as_ref().and_then(|text| self.source.parse(text).ok());
        if before.is_some_and(|before| before.config == read.config) {
            // Only comments or layout of the file have changed. Changes that exist only in memory stay in
            // effect.
            state.in_file = Some(read.text.clone());
            if read.config == state.parsed.config {
                state.parsed = read;
            }
            return Ok(());
        }
        let text = read.text.clone();
        let parsed = match state.unwritten {
            true => self
                .source
                .change(&read, &carry_over::edited_meanwhile(&read.config, &state.parsed.config))?,
            false => read,
        };
        self.take_over(state, parsed, text, "file", Resolution::Known).map(|_| ())
    }

    fn read(&self, state: &StoreState) -> Result<Parsed, ConfigError> {
        match self.source.file() {
            Some(_) => self.source.read(),
            // A configuration that is built in, or was read from a pipe, cannot change at its source.
            None => Ok(state.parsed.clone()),
        }
    }

    /// Makes `parsed` the running configuration, which is the text `read` of the file or was derived from it.
    fn take_over(
        &self,
        state: &mut StoreState,
        parsed: Parsed,
        read: String,
        by: &str,
        names: Resolution,
    ) -> Result<Applied, ConfigError> {
        let (next, applied) = self.prepare(state, &parsed, names)?;
        // These fields are set only after `prepare` succeeds. After an edit that cannot be taken over, the next
        // change must still see that the file was edited.
        state.unwritten = state.unwritten && parsed.text != read;
        state.in_file = Some(read);
        self.commit(state, parsed, next, by, &applied);
        Ok(applied)
    }

    /// Prepares a change: takes over an edit of the file that the gateway has not noticed yet. Otherwise the
    /// change would start from an old configuration, and writing it would overwrite the edit.
    ///
    /// Returns true if the file may be written.
    fn begin<R>(&self, state: &mut StoreState, change: Change<'_>) -> Result<bool, ChangeError<R>> {
        let edited = self.keeps_in(&state.parsed).is_some() && self.is_edited(state);
        let caught_up = if edited { self.catch_up(state) } else { Ok(()) };
        let writable = match (caught_up, change.persistence) {
            (Ok(()), _) => true,
            (Err(error), Persistence::Attempted) => {
                warn!("the change is not in the file, which was edited and is not valid now: {error}");
                false
            }
            (Err(error), Persistence::Required) => return Err(ChangeError::FileIsWrong(error)),
        };
        self.is_expected(change)?;
        Ok(writable)
    }

    fn is_expected<R>(&self, change: Change<'_>) -> Result<(), ChangeError<R>> {
        let now = self.load();
        match change.expected {
            Some(expected) if !expected.contains(&self.etag(&now)) => {
                Err(ChangeError::OutOfDate(now.revision))
            }
            _ => Ok(()),
        }
    }

    /// Returns true if the file has changed since it was last read or written.
    fn is_edited(&self, state: &StoreState) -> bool {
        let now = self.source.keeps_changes_in().and_then(|file| std::fs::read_to_string(file).ok());
        now != state.in_file
    }

    /// Returns the file to which changes are written; `None` if they are not written. A change that turns
    /// `admin.persist` off is itself still written.
    fn keeps_in(&self, next: &Parsed) -> Option<&Path> {
        let persists = next.config.admin.persist || self.load().config.admin.persist;
        self.source.keeps_changes_in().filter(|_| persists)
    }

    // ANCHOR: replace
    /// Compiles the new configuration, writes it to its file, and swaps the snapshots.
    fn replace<R>(
        &self,
        state: &mut StoreState,
        parsed: Parsed,
        change: Change<'_>,
        writable: bool,
    ) -> Result<Applied, ChangeError<R>> {
        if parsed.text == state.parsed.text {
            // The new configuration equals the running one.
            let snapshot = self.load();
            let before = snapshot.revision;
            return Ok(Applied { before, snapshot, changes: Vec::new(), after_restart: Vec::new() });
        }
        let prepared = self.prepare(state, &parsed, Resolution::Known);
        let (next, applied) = prepared.map_err(ChangeError::Invalid)?;
        if change.dry_run {
            forget(&self.metrics, &next, &self.load());
            return Ok(applied);
        }
        let written = if writable { self.write(state, &parsed) } else { Ok(()) };
        match written {
            Ok(()) => state.unwritten = !writable,
            Err((file, error)) if change.persistence == Persistence::Attempted => {
                warn!(file, %error, "the change is not in the file; the gateway tries to write it again");
                state.unwritten = true;
            }
            Err((file, error)) => {
                forget(&self.metrics, &next, &self.load());
                return Err(ChangeError::NotKept { file, error });
            }
        }
        self.commit(state, parsed, next, change.by, &applied);
        Ok(applied)
    }
    // ANCHOR_END: replace

    /// Does the parts of a change that may fail, except writing the file.
    fn prepare(
        &self,
        state: &StoreState,
        parsed: &Parsed,
        names: Resolution,
    ) -> Result<(Arc<Snapshot>, Applied), ConfigError> {
        let before = self.load();
        let wrong = |faults| self.source.locate(parsed, faults);
        let resolved = resolve(&parsed.config, names, &before.resolved).map_err(wrong)?;
        let with = self.surroundings(&before, resolved, before.revision + 1);
        let next = Arc::new(compile(&parsed.config, &with).map_err(wrong)?);
        if let Err(faults) = try_on(&next) {
            forget(&self.metrics, &next, &before);
            return Err(wrong(faults));
        }
        let applied = Applied {
            before: before.revision,
            snapshot: next.clone(),
            changes: difference(&state.parsed.config, &parsed.config),
            after_restart: self.started_with.needs_restart(&parsed.config),
        };
        Ok((next, applied))
    }

    /// Writes a configuration to its file. Does nothing if changes are not written to a file.
    fn write(&self, state: &mut StoreState, parsed: &Parsed) -> Result<(), (String, KeepError)> {
        let Some(file) = self.keeps_in(parsed) else { return Ok(()) };
        keep(file, &parsed.text, || !self.is_edited(state))
            .map_err(|error| (file.display().to_string(), error))?;
        state.in_file = Some(parsed.text.clone());
        state.unwritten = false;
        Ok(())
    }

    /// Does the last part of a change, which cannot fail: swaps the snapshots and records the revision.
    fn commit(
        &self,
        state: &mut StoreState,
        parsed: Parsed,
        next: Arc<Snapshot>,
        by: &str,
        applied: &Applied,
    ) {
        self.metrics.last_reload_successful.set(1);
        self.swap(next.clone());
        info!(
            by,
            revision = next.revision,
            changes = applied.changes.len(),
            "a new configuration was applied"
        );
        if !applied.after_restart.is_empty() {
            warn!("these keys take effect only after a restart: {}", applied.after_restart.join(", "));
        }
        let changes = applied.changes.clone();
        let text = parsed.text.clone();
        let number = next.revision;
        let revision = Revision { number, at: SystemTime::now(), by: by.to_owned(), changes, text };
        state.history.push_back(Arc::new(revision));
        while state.history.len() > parsed.config.admin.history.saturating_add(1) {
            state.history.pop_front();
        }
        state.parsed = parsed;
    }
}

/// Returns the reader of secrets. Secrets are optional if names stay unresolved: the configuration is then only
/// checked, perhaps on a machine that lacks the secrets of the machine that will run it.
fn secrets(names: Resolution) -> Secrets {
    if names == Resolution::Unresolved { Secrets::optional() } else { Secrets::required() }
}
