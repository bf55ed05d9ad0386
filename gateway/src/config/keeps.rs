//! `results` and `mask`: what recordings keep of the answers to SQL, and what never.

use super::section::{Section, TextSpot};
use tidegate_grants::{Keeps, Masks, Results, keeps::Mask};

const MASK_FIX: &str = "list names of columns, like [\"password\", \"card_*\"]";

/// As this section has it; what it does not say, as `default` does. What that masks is masked here as well.
pub(super) fn keeps(section: &Section<'_>, default: &Keeps) -> Option<Keeps> {
    let results = match section.text("results") {
        None => Some(default.results),
        Some(results) => match results.value {
            "none" => Some(Results::None),
            "head" => Some(Results::Head),
            "all" => Some(Results::All),
            _ => {
                results.fault("is neither \"none\" nor \"head\" nor \"all\"", "write one of them");
                None
            }
        },
    };
    let masks = section.texts("mask").map_or(Some(Vec::new()), |list| {
        let mask = |name: TextSpot<'_>| name.parse(str::parse::<Mask>, MASK_FIX).map(|mask| mask.value);
        list.value.into_iter().map(mask).collect::<Option<Vec<Mask>>>()
    });
    let masks: Masks = default.masks.iter().cloned().chain(masks?).collect();
    Some(Keeps { results: results?, masks })
}
