//! Says once of each grant that it ends soon: an entry of the ledger, which whoever wants to hear of such things is told.
//!
//! What always holds: the entry names the grant's row as it is then, so whether it was made is looked up by the ledger's own index, after a
//! restart too. A grant that never had more time than this, and one that was extended, end without it.

use super::{permit::Rules, rows};
use crate::{
    grant::{Claims, GrantState, jws},
    ledger::Event,
    policy::Policy,
    request::RequestState,
    store::{
        StoreError, requests,
        writer::{Tx, Writer},
    },
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

/// So long before.
pub(super) const SOON: SignedDuration = SignedDuration::from_mins(5);

/// Writes it down of those of which it is time; of how many.
pub(super) fn tell(writer: &mut Writer, rules: &Rules, now: Timestamp) -> Result<usize, StoreError> {
    let policy = rules.policy();
    writer.transact(now, |tx| {
        if tx.trusted().is_err() || tx.behind().is_some() {
            return Ok(0);
        }
        let mut told = 0;
        for row in rows::ending(tx.db(), now, now + SOON)? {
            let Some((claims, end)) = ends_soon(tx, rules, &policy, &row)? else { continue };
            let detail = json!({
                "entitlement": claims.entitlement,
                "ends": end,
                "why": format!("{} ends at {end}", claims.entitlement),
            });
            let event =
                Event::new(rows::ENDING).grant(row.id).identity(&claims.sub).target(&claims.target).detail(detail);
            rows::touch(tx, row.id, event)?;
            told += 1;
        }
        Ok(told)
    })
}

fn ends_soon(
    tx: &Tx<'_>,
    rules: &Rules,
    policy: &Policy,
    row: &rows::GrantRow,
) -> Result<Option<(Claims, Timestamp)>, StoreError> {
    let Ok(verified) = jws::verify(&row.token, policy, rules.own()) else { return Ok(None) };
    let (claims, now) = (verified.claims, tx.now());
    let end = jws::at(row.end(&claims));
    let whole = SignedDuration::from_secs(claims.lasts.unwrap_or(claims.exp - claims.nbf));
    let soon = end.duration_since(now) <= SOON && whole > SOON;
    if !soon || row.standing(&claims, now) != GrantState::Active || !tx.agrees("grants", &row.id.to_string())? {
        return Ok(None);
    }
    let own = requests::of(tx.db(), &claims.sub)?;
    let extended = |it: &requests::RequestRow| it.wanted.extends == Some(row.id) && it.state == RequestState::Granted;
    Ok((!own.iter().any(extended)).then_some((claims, end)))
}
