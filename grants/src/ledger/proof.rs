//! What can be proven of the ledger away from its store, with the public key alone: an export of it, and that it is the one
//! whose heads went to an anchor outside.
//!
//! What always holds: an entry counts as proven only if it is in an unbroken chain up to a head that is signed. Nothing
//! that a line says is believed before; what cannot be read is a fault, named by its line.

use super::{
    Entry, SignedTree,
    chain::{self, Head, ORIGIN, entry_hash, head_holds, written},
};
use rusqlite::types::Value;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use utoipa::ToSchema;

/// One line of an export: an entry, or at its end the signed head of a chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The end of a chain.
    Head {
        /// As signed.
        head: SignedHead,
    },
    /// An entry.
    Entry(Box<Exported>),
}

/// An entry with all that its hash covers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exported {
    /// Its place among the entries of all chains of its store.
    pub place: u64,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
    /// The detail as it was written, where writing it anew gives another text (a number with many digits).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail_text: Option<String>,
}

impl Exported {
    pub(crate) fn new(place: u64, entry: Entry, detail: String) -> Self {
        let again = written(&entry.event.detail);
        Self { place, entry, detail_text: (again != detail).then_some(detail) }
    }

    /// The hash that it must have; `None` if what is shown as its detail is not what was written.
    fn computed(&self) -> Option<String> {
        let Entry { node, seq, at, config, event, row, prev, .. } = &self.entry;
        let detail = match &self.detail_text {
            None => written(&event.detail),
            Some(text) if serde_json::from_str(text).ok().as_ref() == Some(&event.detail) => text.clone(),
            Some(_) => return None,
        };
        let perhaps = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let of_row = |part: fn(&super::Described) -> &String| perhaps(row.as_ref().map(|row| part(row).clone()));
        let columns = [
            Value::Integer(i64::try_from(self.place).ok()?),
            Value::Text(node.clone()),
            Value::Integer(i64::try_from(*seq).ok()?),
            Value::Text(at.to_string()),
            Value::Text(config.clone()),
            Value::Text(event.kind.clone()),
            perhaps(event.session.map(|id| id.to_string())),
            perhaps(event.identity.clone()),
            perhaps(event.target.as_ref().map(ToString::to_string)),
            perhaps(event.grant.map(|id| id.to_string())),
            perhaps(event.lease.map(|id| id.to_string())),
            Value::Text(detail),
            of_row(|row| &row.table),
            of_row(|row| &row.key),
            of_row(|row| &row.digest),
            Value::Text(prev.clone()),
        ];
        Some(entry_hash(columns.iter().map(Into::into)))
    }

    /// Whether its hash is that of what it says.
    pub fn is_consistent(&self) -> bool {
        self.computed().is_some_and(|hash| hash == self.entry.hash)
    }
}

/// The end of a chain, signed: what goes to anchors outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedHead {
    /// Whose chain.
    pub node: String,
    /// How many entries it has.
    pub seq: u64,
    /// The hash of the last, hex.
    pub hash: String,
    /// When it was signed, RFC 3339.
    pub at: String,
    /// Ed25519, hex.
    pub signature: String,
    /// The root of the tree over all entries up to it, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<SignedRoot>,
}

/// The root of the tree over a chain up to a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedRoot {
    /// Hex.
    pub root: String,
    /// Of a [`SignedTree`] of the head's own time: Ed25519, hex.
    pub signature: String,
}

impl SignedHead {
    /// The tree that it ends, if this key signed that.
    pub fn tree(&self, public: &[u8; 32]) -> Option<SignedTree> {
        let SignedHead { node, seq, hash, at, tree, .. } = self.clone();
        let SignedRoot { root, signature } = tree?;
        Some(SignedTree { node, seq, hash, root, at, signature }).filter(|tree| tree.holds(public))
    }

    /// Whether this key signed it.
    pub fn holds(&self, public: &[u8; 32]) -> bool {
        let Ok(seq) = i64::try_from(self.seq) else { return false };
        head_holds(public, &self.node, &Head { seq, hash: self.hash.clone() }, &self.at, &self.signature)
    }
}

/// A head with another gateway's word that it saw it then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersigned {
    /// As it was signed.
    #[serde(flatten)]
    pub head: SignedHead,
    /// What the other says.
    pub countersigned: Countersignature,
}

/// Another gateway's word that it saw a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Countersignature {
    /// Who saw it.
    pub gateway: String,
    /// When, RFC 3339.
    pub at: String,
    /// By its ledger key: Ed25519, hex.
    pub signature: String,
}

impl Countersigned {
    /// Whether this key countersigned it.
    pub fn holds(&self, witness: &[u8; 32]) -> bool {
        let Countersignature { gateway, at, signature } = &self.countersigned;
        chain::countersignature_holds(witness, &self.head, gateway, at, signature)
    }
}

/// Heads that an anchor outside has kept, one JSON object a line.
#[derive(Debug, Default)]
pub struct Anchors {
    heads: BTreeMap<(String, u64), SignedHead>,
    countersigned: Vec<Countersigned>,
    trees: BTreeMap<(String, u64), SignedTree>,
    /// Lines that are no head of this key's.
    pub faults: Vec<String>,
}

impl Anchors {
    /// The lines of an anchor's file. Syslog's own words before the object are passed over.
    pub fn read(text: &str, public: &[u8; 32]) -> Self {
        let mut anchors = Self::default();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let object = line.find('{').and_then(|at| line.get(at..)).unwrap_or_default();
            match serde_json::from_str::<SignedHead>(object) {
                Ok(head) if head.holds(public) => {
                    let tree = head.tree(public);
                    if head.tree.is_some() && tree.is_none() {
                        anchors.faults.push(format!("anchor line {number}: its root is not signed by this key"));
                    }
                    anchors.trees.extend(tree.map(|tree| ((tree.node.clone(), tree.seq), tree)));
                    anchors.countersigned.extend(serde_json::from_str::<Countersigned>(object).ok());
                    let other = anchors.heads.insert((head.node.clone(), head.seq), head.clone());
                    if other.is_some_and(|other| other.hash != head.hash) {
                        let fault = "two ledgers were signed, which part at or before";
                        anchors.faults.push(format!("anchor line {number}: {fault} {}/{}", head.node, head.seq));
                    }
                }
                Ok(_) => anchors.faults.push(format!("anchor line {number}: the signature is not by this key")),
                Err(_) => anchors.faults.push(format!("anchor line {number}: this is no head of a ledger")),
            }
        }
        anchors
    }

    /// The heads, by chain and number.
    pub fn heads(&self) -> impl Iterator<Item = &SignedHead> {
        self.heads.values()
    }

    /// The largest tree over this chain.
    pub fn newest_tree(&self, node: &str) -> Option<&SignedTree> {
        self.trees.range((node.to_owned(), 0)..=(node.to_owned(), u64::MAX)).next_back().map(|(_, tree)| tree)
    }

    /// What went to the anchor of this tree: when, or why it is not that.
    pub fn has_tree(&self, tree: &SignedTree) -> Result<&str, String> {
        let SignedTree { node, seq, .. } = tree;
        match self.trees.get(&(node.clone(), *seq)) {
            Some(theirs) if (&theirs.root, &theirs.hash) == (&tree.root, &tree.hash) => Ok(&theirs.at),
            Some(theirs) => Err(format!("the ledger is not the one whose root went to the anchor at {}", theirs.at)),
            None if self.trees.is_empty() => {
                Err("the heads of the anchor have no roots that count: it cannot hold evidence".to_owned())
            }
            None => Err(format!("the anchor has no root of {node}/{seq}: make the bundle with --anchor")),
        }
    }

    /// Of each chain the newest head that the owner of this key saw.
    pub fn seen_by(&self, witness: &[u8; 32]) -> BTreeMap<&str, &Countersigned> {
        let mut newest: BTreeMap<&str, &Countersigned> = BTreeMap::new();
        for line in self.countersigned.iter().filter(|line| line.holds(witness)) {
            let known = newest.entry(&line.head.node).or_insert(line);
            if known.head.seq <= line.head.seq {
                *known = line;
            }
        }
        newest
    }

    /// Heads that none of them saw are faults: whoever has the ledger's key can sign as many as they like. Roots, which no witness signs,
    /// count no more.
    pub fn must_be_seen_by(&mut self, witnesses: &[[u8; 32]]) {
        let seen = self.countersigned.iter().filter(|line| witnesses.iter().any(|witness| line.holds(witness)));
        let seen: BTreeSet<_> = seen.map(|line| (&line.head.node, line.head.seq, &line.head.hash)).collect();
        let unseen = self.heads.values().filter(|head| !seen.contains(&(&head.node, head.seq, &head.hash)));
        let unseen: Vec<String> = unseen
            .map(|head| format!("head {}/{} of the anchor: no witness has countersigned it", head.node, head.seq))
            .collect();
        self.faults.extend(unseen);
        self.trees.clear();
    }

    /// What is to be said of a ledger that has this hash (or no entry) where the anchor has `head`.
    pub fn fault(head: &SignedHead, found: Option<&str>) -> Option<String> {
        let SignedHead { node, seq, at, .. } = head;
        match found {
            Some(hash) if hash == head.hash => None,
            Some(_) => Some(format!(
                "ledger {node}/{seq}: not the entry whose hash went to the anchor at {at}: the ledger was written anew"
            )),
            None => Some(format!(
                "ledger {node}/{seq}: it went to the anchor at {at}, and is gone: the ledger was cut or an older one put back"
            )),
        }
    }
}

/// Walks an export line by line.
#[derive(Debug)]
pub struct Walk {
    public: [u8; 32],
    chains: BTreeMap<String, Link>,
    anchored: BTreeMap<(String, u64), (SignedHead, Option<String>)>,
    lines: u64,
    found: Found,
}

/// What was found in an export.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Found {
    /// Entries in an unbroken chain up to a signed head.
    pub entries: u64,
    /// Of which chain up to which signed head they were proven.
    pub heads: Vec<SignedHead>,
    /// Of chains with a fault: what is proven all the same.
    pub left: Vec<Left>,
    /// Every fault.
    pub faults: Vec<String>,
}

/// Entries that are as they were written, though others of their chain are not, or are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Whose chain.
    pub node: String,
    /// The first of them.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// When the head was signed that vouches for them, RFC 3339.
    pub signed: String,
    /// It is one that an anchor has.
    pub anchored: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, from, to, signed, .. } = self;
        let head = if self.anchored { "a head of the anchor" } else { "the head at its end" };
        write!(f, "still proven: ledger {node}/{from} to {node}/{to}, by {head}, signed at {signed}")
    }
}

#[derive(Debug, Default)]
struct Link {
    seq: u64,
    hash: String,
    good: u64,
    broken: bool,
    /// From here on each entry follows from the one before.
    since: u64,
    /// Up to here all is as an anchor has it.
    anchored: Option<SignedHead>,
    /// The highest number that came.
    highest: u64,
    /// A number came twice: which of the two is meant, its name does not say.
    doubtful: bool,
    /// Its head has come: nothing comes behind it.
    ended: bool,
}

impl Walk {
    /// With the anchors that the export is held against, if there are any.
    pub fn new(public: [u8; 32], anchors: &Anchors) -> Self {
        let wanted = |head: &SignedHead| ((head.node.clone(), head.seq), (head.clone(), None));
        let found = Found { faults: anchors.faults.clone(), ..Found::default() };
        Self { public, chains: BTreeMap::new(), anchored: anchors.heads().map(wanted).collect(), lines: 0, found }
    }

    /// The next line.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        match serde_json::from_str(line) {
            Ok(Line::Entry(entry)) => self.entry(&entry),
            Ok(Line::Head { head }) => self.head(&head),
            Err(_) => self.fault(format!("line {}: neither an entry nor a head of a ledger", self.lines)),
        }
    }

    fn fault(&mut self, fault: String) {
        self.found.faults.push(crate::text::line(&fault, crate::text::LINE));
    }

    fn entry(&mut self, exported: &Exported) {
        let Entry { node, seq, prev, hash, .. } = &exported.entry;
        let anchored = self.anchored.get_mut(&(node.clone(), *seq));
        let anchored = anchored.map(|(head, found)| (&*head, &*found.insert(hash.clone())));
        let origin = Link { hash: ORIGIN.to_owned(), since: 1, ..Link::default() };
        let link = self.chains.entry(node.clone()).or_insert(origin);
        let consistent = exported.is_consistent();
        link.doubtful |= *seq <= link.highest;
        link.highest = link.highest.max(*seq);
        let fault = if link.ended {
            Some(format!("ledger {node}/{seq}: the row stands behind the head of its chain"))
        } else if Some(*seq) != link.seq.checked_add(1) {
            Some(match *seq > link.seq {
                true => {
                    format!("ledger {node}/{} to {node}/{}: the rows are missing", link.seq.saturating_add(1), seq - 1)
                }
                false => format!("ledger {node}/{seq}: the row is twice there or out of its order"),
            })
        } else if *prev != link.hash {
            Some(format!("ledger {node}/{seq}: it does not follow from the row before"))
        } else if !consistent {
            Some(format!("ledger {node}/{seq}: the row was changed"))
        } else {
            None
        };
        if fault.is_none() {
            link.good += u64::from(!link.broken);
        } else {
            link.broken = true;
            link.since = if consistent { *seq } else { seq.saturating_add(1) };
        }
        if let Some((head, _)) = anchored.filter(|(head, found)| !link.broken && head.hash == **found) {
            link.anchored = Some(head.clone());
        }
        (link.seq, link.hash) = (*seq, hash.clone());
        if let Some(fault) = fault {
            self.fault(fault);
        }
    }

    fn head(&mut self, head: &SignedHead) {
        if !head.holds(&self.public) {
            return self.fault(format!("head of {}: the signature is not by this key", head.node));
        }
        let known = self.chains.get_mut(&head.node);
        if known.is_some_and(|link| std::mem::replace(&mut link.ended, true)) {
            return self.fault(format!("head of {}: it is there twice", head.node));
        }
        match self.chains.get(&head.node) {
            Some(link) if (link.seq, &link.hash) == (head.seq, &head.hash) && !link.broken => {
                self.found.entries += link.good;
                self.found.heads.push(head.clone());
            }
            Some(link) if (link.seq, &link.hash) == (head.seq, &head.hash) => {
                let (node, from, to, signed) = (head.node.clone(), link.since, link.seq, head.at.clone());
                self.found.left.extend((from <= to && !link.doubtful).then_some(Left {
                    node,
                    from,
                    to,
                    signed,
                    anchored: false,
                }));
            }
            _ => self.fault(format!("head of {0}: it is of {0}/{1}, where the rows do not end", head.node, head.seq)),
        }
    }

    /// Nothing comes any more.
    pub fn end(mut self) -> Found {
        let signed = |node: &str| self.found.heads.iter().any(|head| head.node == node);
        let unsigned = self.chains.iter().filter(|(node, link)| !link.broken && !signed(node));
        let unsigned: Vec<String> =
            unsigned.map(|(node, _)| format!("ledger {node}: no signed head vouches for it")).collect();
        self.found.faults.extend(unsigned);
        for (node, link) in &self.chains {
            if let Some(head) = link.anchored.as_ref().filter(|_| !signed(node) && !link.doubtful) {
                let (node, signed) = (node.clone(), head.at.clone());
                self.found.left.push(Left { node, from: 1, to: head.seq, signed, anchored: true });
            }
        }
        let anchored = std::mem::take(&mut self.anchored);
        let faults = anchored.values().filter_map(|(head, found)| Anchors::fault(head, found.as_deref()));
        self.found.faults.extend(faults);
        if self.chains.is_empty() && self.found.faults.is_empty() {
            self.found.faults.push("there is no entry in it".to_owned());
        }
        self.found
    }
}
