//! What to install on a PostgreSQL target, printed by `tidegate target trust`.

use super::PostgresTarget;
use crate::trust::Part;
use tidegate_grants::Policy;

/// Parts `ca`, `postgresql_conf`, `pg_hba`, `sql`, for all that entitlements of `policy` reach on this target.
/// `source_addresses` is what the target sees of the gateway, `ca_pem` our X.509 CA.
pub fn trust(target: &PostgresTarget, policy: &Policy, source_addresses: &[String], ca_pem: &str) -> Vec<Part> {
    let _ = (target, policy, source_addresses, ca_pem);
    todo!()
}
