//! Who comes, and who vouches for them.

use super::*;

pub(super) static GROUP: Table = Table {
    about: "A group whose members are members of others, too.",
    keys: &[
        must("name", IDENTITY, "The group, as users have it in groups."),
        must("groups", Value::List(&IDENTITY, 0), "Whoever is in it is in these, too; no group is in itself."),
    ],
};

pub(super) static USER: Table = Table {
    about: "Who may come to the door, and how they prove it.",
    keys: &[
        must("name", IDENTITY, "Who it is, in grants and records."),
        may("groups", Value::List(&IDENTITY, 0), "What entitlements and roles go by."),
        may("ssh_keys", Value::List(&PUBLIC_KEY, 0), "Public keys, each of nobody else."),
        may(
            "unix_user",
            Value::Like("^[^:/, \\t]{1,64}$"),
            "This local account, on the gateway's Unix socket, is this user.",
        ),
        may("oidc", Value::Text, "Their `sub` at the [oidc] provider: by that login they are this user."),
        later("totp"),
        later("email"),
        later("notify"),
        later("tokens"),
    ],
};

pub(super) static OIDC: Table = Table {
    about: "An OpenID provider: people log in there from within `ssh`, and are here whom it says, for a while.",
    keys: &[
        must("issuer", URL, "As it calls itself. http only to this host itself."),
        must("client_id", Value::Text, "What this gateway is called there."),
        may(
            "client_secret_file",
            Value::Text,
            "A file of mode 0600 with that client's secret; a public client has none.",
        ),
        may("client_secret_env", VARIABLE, "The same: the environment variable that holds it."),
        may("tls_ca", Value::Text, "Who signs its certificate, a PEM file. Default: the system's."),
        may("identity", Value::Text, "The claim that is the name here. Default: \"preferred_username\"."),
        may("suffix", Value::Text, "What follows the name there, like \"@example.com\"; who has it not is not let in."),
        may("groups_claim", Value::Text, "The claim with the groups. Default: \"groups\"."),
        must(
            "groups",
            Value::Labels,
            "Groups there, and what they are here. Others mean nothing; no role comes by them.",
        ),
        may("scopes", Value::List(&Value::Text, 0), "What is asked for beside openid. Default: [\"profile\"]."),
        may("algorithms", ALGORITHMS, "Of its ID tokens. Default: [\"RS256\", \"ES256\", \"EdDSA\"]."),
        may("life", POSITIVE, "For how long a login is good, and the key with it, up to 7 days. Default: \"1d\"."),
    ],
};

pub(super) static WORKLOAD: Table = Table {
    about: "A program that an outside issuer vouches for: it gets a short token for one of its issuer's.",
    keys: &[
        must("name", IDENTITY, "Who it is, in grants and records."),
        may(
            "groups",
            Value::List(&IDENTITY, 0),
            "What entitlements go by. None of an admin, an auditor or an approver.",
        ),
        must("issuer", Value::Text, "The `iss` of its tokens."),
        must("audience", Value::Text, "What their `aud` must name."),
        must(
            "claims",
            Value::Labels,
            "What else must stand in them, like { sub = \"repo:acme/shop:ref:refs/heads/main\" }.",
        ),
        may("algorithms", ALGORITHMS, "Of their signatures. Default: [\"RS256\", \"ES256\", \"EdDSA\"]."),
        may("jwks_url", URL, "Where its issuer's public keys are. http only to this host itself."),
        may("jwks_file", Value::Text, "The same as a file."),
        may("tls_ca", Value::Text, "Who signs that server's certificate, a PEM file. Default: the system's."),
        may(
            "life",
            POSITIVE,
            "Of the token that it gets, and of a key that it registers, up to a day. Default: \"15m\".",
        ),
    ],
};

pub(super) static ISSUER: Table = Table {
    about: "An outside approval system whose signed grants are honoured.",
    keys: &[
        must("name", PLAIN, "The `iss` of its grants."),
        must("algorithm", Value::OneOf(&["HS256", "EdDSA"]), "Pinned: a token does not choose it."),
        may("secret_file", Value::Text, "HS256: a file of mode 0600 with the shared secret, of 32 bytes or more."),
        may("secret_env", VARIABLE, "HS256: the environment variable that holds it."),
        may("public_key", Value::Text, "EdDSA: its Ed25519 key, PEM or base64."),
        must("entitlements", Value::List(&ENTITLEMENT_NAME, 1), "What it may grant, and nothing else."),
        must("max_ttl", POSITIVE, "For how long at most."),
        may("counts_as_approval", Value::Boolean, "Its grants count as an approval. Default: false."),
        later("jwks_url"),
        later("audience"),
    ],
};
