//! Programs that somebody else vouches for: a token of their issuer, exchanged for one of ours.

use super::{
    KeyRing, Unproven,
    jwt::{self, Expected},
    wrong,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tidegate_grants::{IdentityName, authority::Exchange};

/// One `[[workload]]`. Its groups are those of an identity like any other.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Who it is here.
    pub(crate) name: IdentityName,
    pub(crate) expected: Expected,
    /// What must stand in its token, claim by claim.
    pub(crate) claims: BTreeMap<String, String>,
    /// Of what it gets: our token, and a key that it registers.
    pub(crate) life: Duration,
}

/// Who brings this token, if exactly one workload fits it. `named`: which it must be.
pub(crate) async fn identify(
    workloads: &[Arc<Workload>],
    ring: &KeyRing,
    token: &str,
    named: Option<&IdentityName>,
    now: Timestamp,
) -> Result<Exchange, Unproven> {
    let said = jwt::peek(token)?;
    let named_so = |workload: &&Arc<Workload>| named.is_none_or(|name| workload.name == *name);
    let issued_so =
        |workload: &&Arc<Workload>| said.claims.get("iss") == Some(&workload.expected.issuer.as_str().into());
    let issued: Vec<_> = workloads.iter().filter(named_so).filter(issued_so).collect();
    if issued.is_empty() {
        return wrong("no workload of the configuration has its issuer (iss)");
    }
    // What it says of itself only finds whose keys are asked for.
    let may_be: Vec<_> = issued.into_iter().filter(|workload| fits(workload, &said.claims)).collect();
    let mut why = Unproven::Wrong("its claims are not those of the workload".to_owned());
    let mut found = Vec::new();
    for workload in may_be {
        match jwt::verify(token, &workload.expected, ring, now).await {
            Ok(claims) if fits(workload, &claims.all) => found.push((workload, claims)),
            Ok(_) => why = Unproven::Wrong("its claims are not those of the workload".to_owned()),
            Err(error) => why = error,
        }
    }
    let (workload, claims) = match <[_; 1]>::try_from(found) {
        Ok([one]) => one,
        Err(none) if none.is_empty() => return Err(why),
        Err(_) => return wrong("several workloads fit it: say which, as `workload`"),
    };
    let one_of_a_kind = claims.text("jti").map_or_else(|| claims.signed.clone(), |jti| format!("jti {jti}"));
    Ok(Exchange {
        workload: workload.name.clone(),
        issuer: workload.expected.issuer.clone(),
        subject: claims.text("sub").unwrap_or("no sub").to_owned(),
        one_of_a_kind,
        ends: claims.ends,
        life: workload.life,
    })
}

/// Text for text: a list or a number is something else.
fn fits(workload: &Workload, claims: &Map<String, Value>) -> bool {
    workload.claims.iter().all(|(name, value)| claims.get(name).and_then(Value::as_str) == Some(value))
}
