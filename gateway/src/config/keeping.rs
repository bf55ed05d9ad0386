//! `[recording] keep` and `budget`, and `[[retention]]`: how long recordings are kept, and in how much room.

use super::{
    section::{Section, Whole},
    value::{self, DURATION_FIX},
};
use std::{collections::BTreeSet, time::Duration};
use tidegate_grants::TargetName;

const BUDGET_FIX: &str = "write how much room recordings may take, like \"200GiB\"";
const TARGETS_FIX: &str = "list names of targets, like [\"web-1\"], also of those that are no more";

/// How long recordings are kept, and in how much room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// Where no rule says something else; `None`: for ever.
    pub(crate) keep: Option<Duration>,
    /// The first that fits a recording counts.
    pub(crate) rules: Vec<Rule>,
    /// At most so many bytes; `None`: all there is.
    pub(crate) budget: Option<u64>,
}

/// One `[[retention]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Of these targets; empty: of all.
    pub(crate) targets: BTreeSet<TargetName>,
    /// Of this protocol; `None`: of both.
    pub(crate) protocol: Option<&'static str>,
    /// So long after its end.
    pub(crate) keep: Duration,
}

impl Keeping {
    /// How long a recording is kept. `None`: for ever.
    pub(crate) fn of(&self, target: &str, protocol: &str) -> Option<Duration> {
        let fits = |rule: &&Rule| {
            (rule.targets.is_empty() || rule.targets.iter().any(|name| name.as_str() == target))
                && rule.protocol.is_none_or(|of| of == protocol)
        };
        self.rules.iter().find(fits).map(|rule| rule.keep).or(self.keep)
    }

    /// Nothing is ever deleted.
    pub(crate) fn is_for_ever(&self) -> bool {
        self.keep.is_none() && self.rules.is_empty()
    }
}

/// `None` has said why.
pub(super) fn keeping(section: &Section<'_>) -> Option<Keeping> {
    let keep = match section.text("keep") {
        Some(keep) => keep.parse(value::positive_duration, DURATION_FIX).map(|keep| Some(keep.value)),
        None => Some(None),
    };
    let budget = match section.text("budget") {
        None => Some(None),
        Some(budget) => budget.parse(value::size, BUDGET_FIX).and_then(|budget| {
            if budget.value == 0 {
                budget.fault("is nothing: no session could be recorded", BUDGET_FIX);
            }
            (budget.value > 0).then_some(Some(budget.value))
        }),
    };
    Some(Keeping { keep: keep?, rules: Vec::new(), budget: budget? })
}

/// All `[[retention]]`. What was faulty is left out, and has said so.
pub(super) fn rules(whole: &Whole<'_>) -> Vec<Rule> {
    whole.main.sections("retention").iter().filter_map(rule).collect()
}

fn rule(section: &Section<'_>) -> Option<Rule> {
    let keep = section.need("keep", section.text("keep"), "write keep = \"90d\"");
    let keep = keep.and_then(|keep| keep.parse(value::positive_duration, DURATION_FIX));
    let mut targets = Some(BTreeSet::new());
    for name in section.texts("targets").map(|list| list.value).unwrap_or_default() {
        let name = name.parse(str::parse::<TargetName>, TARGETS_FIX);
        targets = targets.zip(name).map(|(mut all, name)| {
            all.insert(name.value);
            all
        });
    }
    let protocol = match section.text("kind") {
        None => Some(None),
        Some(kind) => match kind.value {
            "ssh" => Some(Some("ssh")),
            "postgres" => Some(Some("postgres")),
            _ => {
                kind.fault("is neither \"ssh\" nor \"postgres\"", "write one of them, or nothing for both");
                None
            }
        },
    };
    section.unknown();
    Some(Rule { targets: targets?, protocol: protocol?, keep: keep?.value })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts_and_else_what_holds_for_all() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let rule = |targets: &[&str], protocol, keep| Rule {
            targets: targets.iter().map(|name| name.parse().unwrap()).collect(),
            protocol,
            keep: days(keep),
        };
        let rules = vec![rule(&["web-1"], None, 7), rule(&[], Some("postgres"), 700)];
        let keeping = Keeping { keep: Some(days(90)), rules, budget: None };
        assert_eq!(keeping.of("web-1", "postgres"), Some(days(7)));
        assert_eq!(keeping.of("orders", "postgres"), Some(days(700)));
        assert_eq!(keeping.of("orders", "ssh"), Some(days(90)));
        assert!(!keeping.is_for_ever() && Keeping::default().is_for_ever());
        assert_eq!(Keeping::default().of("orders", "ssh"), None);
    }
}
