//! The configuration in force, and its replacement while the gateway serves: whole, or not at all.
//!
//! What always holds: a file with a fault, or with a change that only a restart can bring about, changes nothing. What is
//! in force is in the ledger by its hash; sessions whose grant the new file no longer honours end as it comes into force.

mod inventories;

pub(crate) use inventories::InventoryView;

use crate::{
    config::{
        self, Config,
        diff::{Change, changes, whereabouts},
    },
    elsewhere::DeviceLogins,
};
use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError},
};
use tidegate_ca::Keys;
use tidegate_grants::{Event, SessionId};
use tidegate_proxy::{
    Gate,
    protocol::{
        postgres::{issuer::PostgresIssuer, trust},
        ssh::{Ssh, SshIssuer},
    },
};
use tokio::{sync::Mutex, task::spawn_blocking};
use utoipa::ToSchema;

/// What a new configuration would change, or has changed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Plan {
    /// SHA-256 of the file, hex.
    pub(crate) config: String,
    /// Key by key.
    pub(crate) changes: Vec<Change>,
    /// Live sessions that end because of it.
    pub(crate) ends: Vec<SessionId>,
    /// Why a reload is refused: targets that would be another server while leases are open on them, key by key.
    #[serde(default)]
    pub(crate) moves: Vec<String>,
    /// What `check` notes of the new one and not of that in force: that nobody can use the admin commands any more, e.g.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// The keys that only a restart can change.
    pub(crate) fn needs_restart(&self) -> Vec<&str> {
        self.changes.iter().filter(|change| change.needs_restart()).map(|change| change.key.as_str()).collect()
    }
}

/// What a reload reaches: who mints for each kind of target, and who says at the SSH door who people are.
pub(crate) struct Opened {
    pub(crate) ssh: Arc<SshIssuer>,
    pub(crate) postgres: Arc<PostgresIssuer>,
    pub(crate) ssh_door: Option<Arc<Ssh>>,
    pub(crate) logins: Arc<DeviceLogins>,
}

/// What a reload replaces, and where from.
pub(crate) struct Live {
    file: PathBuf,
    keys: Arc<Keys>,
    gate: Gate,
    config: ArcSwap<Config>,
    opened: Opened,
    /// One reload at a time.
    changing: Mutex<()>,
    looks: inventories::Looks,
    /// Where the targets were that have been taken out since the start: teardown still knows them there.
    former: std::sync::Mutex<BTreeMap<String, toml::Table>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Live {
    /// What the gateway has started with.
    pub(crate) fn new(file: PathBuf, config: Config, keys: Arc<Keys>, gate: Gate, opened: Opened) -> Self {
        let config = ArcSwap::from_pointee(config);
        Self {
            file,
            keys,
            gate,
            config,
            opened,
            changing: Mutex::default(),
            looks: Default::default(),
            former: Default::default(),
        }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What this text in the place of the file would do. `name` is what its faults call it.
    ///
    /// # Errors
    /// Its faults, one a line.
    pub(crate) async fn plan(&self, text: String, name: Option<String>) -> anyhow::Result<Plan> {
        let file = self.file.clone();
        // What a program that stands there would list is not known: it is not run for somebody who only asks.
        let known = config::Known::Listed(self.config().listings.clone());
        let shown = file.display().to_string();
        let new = spawn_blocking(move || config::parse_with(&file, &text, &known)).await?;
        let new = new.map_err(|faults| faults.renamed(&shown, name.as_deref().unwrap_or(&shown)))?;
        new.no_own_authority(&self.keys)?;
        self.compare(&new).await
    }

    async fn compare(&self, new: &Config) -> anyhow::Result<Plan> {
        let changes = changes(&self.config.load().written, &new.written);
        let ends = self.gate.authority.would_end(&new.policy, self.gate.now()).into_iter().collect();
        let moves = self.moves(&changes, new).await?;
        let known = self.config.load();
        // A note that only moved is not new: its place stands before the first colon and blank.
        let bare = |note: &str| note.split_once(": ").map_or_else(|| note.to_owned(), |(_, rest)| rest.to_owned());
        let known: BTreeSet<String> = known.notes.iter().map(|note| bare(note)).collect();
        let warnings = new.notes.iter().filter(|note| !known.contains(&bare(note))).cloned().collect();
        Ok(Plan { config: new.policy.config.clone(), changes, ends, moves, warnings })
    }

    /// Teardown would look for an open lease at the new place, find nothing there, and close it clean.
    async fn moves(&self, changes: &[Change], new: &Config) -> anyhow::Result<Vec<String>> {
        let elsewhere = |name: &str| {
            let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
            former.get(name).is_some_and(|was| whereabouts(&new.written, name).as_ref() != Some(was))
        };
        let moved = |change: &'_ Change| {
            let back = change.brings().filter(|name| elsewhere(name));
            change.moves().or(back).map(str::to_owned)
        };
        let moved: Vec<_> = changes.iter().filter_map(|change| Some((moved(change)?, &change.key))).collect();
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let leases = self.gate.store.leases(false).await?;
        let open = |target: &str| leases.iter().filter(|lease| lease.target().as_str() == target).count();
        let held = moved.into_iter().filter_map(|(target, key)| match open(&target) {
            0 => None,
            open => {
                Some(format!("{key} cannot change while {open} lease(s) are open on {target} (tidegate lease list)"))
            }
        });
        Ok(held.collect())
    }

    /// Puts the file as it is now in force. `by`: who asked, for the ledger.
    ///
    /// # Errors
    /// Nothing was changed: the file has faults, or needs a restart.
    pub(crate) async fn reload(&self, by: &str) -> anyhow::Result<Plan> {
        let _one = self.changing.lock().await;
        let changed = self.change().await;
        self.gate.meter.reloaded(changed.is_ok());
        match changed {
            Ok(plan) => {
                let told = self.tell(by, &plan).await;
                told.context("the configuration is in force, and the ledger could not be written")?;
                Ok(plan)
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(why, "the configuration was not reloaded; the old one stays in force");
                let event = Event::new("config.refused").detail(serde_json::json!({ "by": by, "why": why }));
                // That it was refused is what whoever asked has to know; that this is not in the ledger is in the log.
                if let Err(error) = self.gate.store.append(event, self.gate.now()).await {
                    tracing::error!(%error, "that it was refused could not be written into the ledger");
                }
                Err(error)
            }
        }
    }

    async fn change(&self) -> anyhow::Result<Plan> {
        let file = self.file.clone();
        let inventories = spawn_blocking(move || config::inventories(&file)).await??;
        let (file, listings) = (self.file.clone(), self.look_at_all(inventories).await);
        let new = spawn_blocking(move || config::load_with(&file, listings)).await??;
        self.put(new).await
    }

    /// Puts a configuration in force, all of it, or says why nothing was changed.
    async fn put(&self, new: Config) -> anyhow::Result<Plan> {
        new.no_own_authority(&self.keys)?;
        let plan = self.compare(&new).await?;
        let fixed = plan.needs_restart();
        if !fixed.is_empty() {
            bail!("{} can only be changed by a restart; nothing was changed", fixed.join(", "));
        }
        if !plan.moves.is_empty() {
            bail!("{}; nothing was changed", plan.moves.join(", "));
        }
        // The one step that can fail comes first.
        self.gate.recorder.replace(new.recording.clone())?;
        self.opened.ssh.replace(new.ssh_targets.clone());
        self.opened.postgres.replace(new.postgres_targets.clone());
        self.opened.postgres.reach(trust::databases(&new.postgres_targets, &new.policy));
        self.gate.vouching.store(Arc::new(new.vouching.clone()));
        self.opened.logins.oidc.store(new.oidc.clone());
        // Last: whoever is let in by the new terms finds the new targets.
        self.gate.authority.replace(new.policy.clone());
        self.remember_former(&plan.changes);
        for (name, listing) in &new.listings {
            if let Err(error) = listing.keep(&new.state_dir, name) {
                tracing::error!(inventory = name, %error, "what it lists could not be kept for the next start");
            }
        }
        self.config.store(Arc::new(new));
        Ok(plan)
    }

    /// Of the targets that go by these changes, where they were. Before the new configuration takes the place of the old.
    fn remember_former(&self, changes: &[Change]) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().filter_map(Change::brings).for_each(|name| drop(former.remove(name)));
        let before = self.config();
        let gone = changes.iter().filter_map(Change::takes);
        former.extend(gone.filter_map(|name| Some((name.to_owned(), whereabouts(&before.written, name)?))));
    }
}
