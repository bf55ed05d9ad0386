//! What an admin installs on a target so that it trusts the gate, and nothing else past it.

/// One part of `tidegate target trust NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `ca`, `sshd_config`, `penalties`, `principals`, `sql`, `sql_managed`, `sql_remove`, `pg_hba`, `postgresql_conf`.
    pub name: &'static str,
    /// Where it goes, for a person.
    pub place: String,
    /// Ready to redirect into that place; comments in it give the reason for each line.
    pub text: String,
}
