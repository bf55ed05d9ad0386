//! Inventories, looked at again and again while the gateway serves.
//!
//! What always holds: what an inventory lists comes into force whole, through the same door as a reload, or not at all; and a
//! look that fails leaves everything as it was, and shows in `status`. A target that is no longer listed is gone as if it had been
//! taken out of the file: its live sessions end with a sentence, the ledger names them, and its leases are still torn down.
//! That half of an inventory is gone at once is more likely a fault of whoever lists it: then an admin has to say so.

use super::Live;
use crate::config::inventory::{Inventory, Listing, Listings, look};
use anyhow::ensure;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tidegate_grants::Event;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::Instant,
};
use utoipa::ToSchema;

/// An inventory as `status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct InventoryView {
    pub(crate) name: String,
    /// In force now.
    pub(crate) targets: usize,
    /// When they were last seen to be listed.
    pub(crate) as_of: Option<jiff::Timestamp>,
    /// Why the last look changed nothing, if it failed.
    pub(crate) fault: Option<String>,
}

/// What came of the last look at each.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<BTreeMap<String, Look>>);

#[derive(Debug)]
struct Look {
    next: Instant,
    as_of: Option<jiff::Timestamp>,
    fault: Option<String>,
}

impl Looks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look.
    fn due(&self, inventory: &Inventory) -> bool {
        self.all().get(&inventory.name).is_none_or(|look| look.next <= Instant::now())
    }

    /// Notes what came of a look. True if that is news.
    fn came_of(&self, inventory: &Inventory, now: jiff::Timestamp, outcome: Result<(), &str>) -> bool {
        let mut all = self.all();
        let before = all.remove(&inventory.name);
        let fault = outcome.err().map(str::to_owned);
        let as_of = if fault.is_none() { Some(now) } else { before.as_ref().and_then(|look| look.as_of) };
        let news = before.map(|look| look.fault) != Some(fault.clone());
        all.insert(inventory.name.clone(), Look { next: Instant::now() + inventory.every, as_of, fault });
        news
    }
}

impl Live {
    /// For `status`.
    pub(crate) fn inventories(&self) -> Vec<InventoryView> {
        let config = self.config();
        let looks = self.looks.all();
        let view = |inventory: &Inventory| {
            let (listing, look) = (config.listings.get(&inventory.name), looks.get(&inventory.name));
            InventoryView {
                name: inventory.name.clone(),
                targets: listing.map_or(0, |listing| listing.names().len()),
                as_of: look.and_then(|look| look.as_of).or(listing.map(|listing| listing.at)),
                fault: look.and_then(|look| look.fault.clone()),
            }
        };
        config.inventories.iter().map(view).collect()
    }

    /// Before the gateway is ready: looks at those of which nothing is known from before.
    pub(crate) async fn look_first(&self) {
        let config = self.config();
        for inventory in config.inventories.iter().filter(|inventory| !config.listings.contains_key(&inventory.name)) {
            self.look_again(inventory).await;
        }
    }

    /// Looks at each when its time has come, for ever.
    pub(crate) async fn keep_looking(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let config = self.config();
            for inventory in config.inventories.iter().filter(|inventory| self.looks.due(inventory)) {
                self.look_again(inventory).await;
            }
        }
    }

    /// What all inventories of the file list now; of those that cannot be looked at, what they listed last.
    pub(super) async fn look_at_all(&self, inventories: Vec<Inventory>) -> Listings {
        let mut listings = self.config().listings.clone();
        let mut looks = JoinSet::new();
        for inventory in inventories {
            let now = self.gate.now();
            looks.spawn(async move { (look(&inventory, now).await, inventory) });
        }
        while let Some(looked) = looks.join_next().await {
            let Ok((found, inventory)) = looked else { continue };
            self.say(&inventory, found.as_ref().map(|_| ()).map_err(String::as_str));
            if let Ok(listing) = found {
                listings.insert(inventory.name, listing);
            }
        }
        listings
    }

    async fn look_again(&self, inventory: &Inventory) {
        let outcome = match look(inventory, self.gate.now()).await {
            Ok(listing) => self.take(inventory, listing).await.map_err(|error| format!("{error:#}")),
            Err(wrong) => Err(wrong),
        };
        self.say(inventory, outcome.as_ref().copied().map_err(String::as_str));
    }

    /// Notes it for `status`, and logs what is news.
    fn say(&self, inventory: &Inventory, outcome: Result<(), &str>) {
        if !self.looks.came_of(inventory, self.gate.now(), outcome) {
            return;
        }
        match outcome {
            Ok(()) => tracing::info!(inventory = inventory.name, "the inventory is read"),
            Err(why) => {
                tracing::error!(
                    inventory = inventory.name,
                    why,
                    "the inventory is not read; what it listed last stays in force"
                );
            }
        }
    }

    /// Puts a listing in force, if it says anything new.
    async fn take(&self, inventory: &Inventory, listing: Listing) -> anyhow::Result<()> {
        let _one = self.changing.lock().await;
        let config = self.config();
        if !config.inventories.contains(inventory) {
            return Ok(()); // taken out while it was looked at
        }
        if let Some(before) = config.listings.get(&inventory.name) {
            if before.is_like(&listing) {
                return Ok(());
            }
            not_halved(&before.names(), &listing.names())?;
        }
        let mut listings = config.listings.clone();
        listings.insert(inventory.name.clone(), listing);
        let new = spawn_blocking(move || config.listing(listings)).await??;
        let plan = self.put(new).await?;
        self.tell(&format!("inventory[{}]", inventory.name), &plan).await
    }

    /// Enters in the ledger what came into force.
    pub(super) async fn tell(&self, by: &str, plan: &super::Plan) -> anyhow::Result<()> {
        let changes: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
        let detail = serde_json::json!({ "by": by, "changes": changes, "ends": plan.ends });
        tracing::info!(
            by,
            config = plan.config,
            changes = changes.len(),
            ends = plan.ends.len(),
            "configuration in force"
        );
        let written = self.gate.store.append(Event::new("config.reloaded").detail(detail), self.gate.now()).await;
        Ok(written.map(|_| ())?)
    }
}

fn not_halved(before: &BTreeSet<String>, now: &BTreeSet<String>) -> anyhow::Result<()> {
    let gone = before.difference(now).count();
    ensure!(
        gone * 2 <= before.len(),
        "{gone} of {} targets are not listed any more: if that is meant, `tidegate reload` puts it in force",
        before.len()
    );
    Ok(())
}
