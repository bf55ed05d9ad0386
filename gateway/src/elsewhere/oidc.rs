//! People who log in at an OpenID provider: who they are, by its ID token (OpenID Connect Core 1.0), got by the device flow
//! (RFC 8628) or by an authorization code with PKCE (RFC 7636).
//!
//! What always holds: the provider is the one of the configuration, which its metadata must say too; an ID token is for our client,
//! from the endpoint that the provider named, and with the nonce that we gave where a browser was in between; groups are those that
//! the configuration maps, and whom it names is only whom it ties to the subject.
//!
//! By hand and not by a crate: what is left of the flows beside the token's verification, which workloads need as well, are
//! three forms.

use super::{
    KeyRing, KeySource, Place, Unproven, is_safe,
    jwt::{self, Claims, Expected},
    unknown, wrong,
};
use hyper::Uri;
use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_grants::{GroupName, IdentityName, guest::Arrival};
use tokio::time::Instant;

/// What the provider says of itself is asked anew after this.
const FRESH: Duration = Duration::from_secs(10 * 60);
/// A person has so long to log in, whatever the provider says.
const MOST_WAIT: Duration = Duration::from_secs(300);
/// Longer is no subject (OpenID Connect Core section 2).
const LONGEST_SUBJECT: usize = 255;

/// `[oidc]`
#[derive(Debug, Clone)]
pub(crate) struct Oidc {
    pub(crate) issuer: String,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) client_id: String,
    pub(crate) secret: Option<Arc<SecretString>>,
    /// The claim that is the name here.
    pub(crate) identity: String,
    /// What follows the name in it, and is cut off.
    pub(crate) suffix: String,
    /// The claim with the groups there.
    pub(crate) groups_claim: String,
    /// Groups there, and what they are here.
    pub(crate) groups: BTreeMap<String, BTreeSet<GroupName>>,
    pub(crate) scopes: Vec<String>,
    pub(crate) algorithms: Vec<Algorithm>,
    /// For how long a login is good.
    pub(crate) life: Duration,
    /// Whom the configuration names, by their subject.
    pub(crate) declared: BTreeMap<String, IdentityName>,
}

/// Asks the provider. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Provider {
    ring: KeyRing,
    metadata: Arc<Mutex<Option<(String, Instant, Metadata)>>>,
}

/// OpenID Connect Discovery 1.0 section 3, and RFC 8414 section 2.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
    jwks_uri: String,
}

/// RFC 8628 section 3.2.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Device {
    device_code: String,
    /// What the person types.
    pub(crate) user_code: String,
    /// Where.
    pub(crate) verification_uri: String,
    expires_in: u64,
    #[serde(default = "five")]
    interval: u64,
}

fn five() -> u64 {
    5
}

/// RFC 6749 section 5.
#[derive(Debug, Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    error: Option<String>,
}

impl Provider {
    async fn metadata(&self, oidc: &Oidc) -> Result<Metadata, Unproven> {
        {
            let held = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((issuer, asked, metadata)) = &*held
                && *issuer == oidc.issuer
                && asked.elapsed() < FRESH
            {
                return Ok(metadata.clone());
            }
        }
        let address = format!("{}/.well-known/openid-configuration", oidc.issuer.trim_end_matches('/'));
        let body = place(oidc, &address)?.get().await.or_else(|fault| away(&oidc.issuer, &fault))?;
        let Ok(metadata) = serde_json::from_slice::<Metadata>(&body) else {
            return away(&oidc.issuer, "what it says of itself cannot be read");
        };
        if metadata.issuer != oidc.issuer {
            return away(&oidc.issuer, "it says that it is another issuer");
        }
        let mut held = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some((oidc.issuer.clone(), Instant::now(), metadata.clone()));
        Ok(metadata)
    }

    /// Begins a login on another device.
    pub(crate) async fn begin_device(&self, oidc: &Oidc) -> Result<Device, Unproven> {
        let metadata = self.metadata(oidc).await?;
        let Some(endpoint) = metadata.device_authorization_endpoint else {
            return away(&oidc.issuer, "it has no device flow");
        };
        let scope = oidc.scope();
        let form = [("client_id", oidc.client_id.as_str()), ("scope", &scope)];
        let (status, body) =
            place(oidc, &endpoint)?.post(&form, oidc.basic()).await.or_else(|why| away(&oidc.issuer, &why))?;
        match serde_json::from_slice(&body) {
            Ok(device) if status.is_success() => Ok(device),
            _ => away(&oidc.issuer, &format!("it began no device flow: {status}")),
        }
    }

    /// Waits until the person has logged in, on whatever device. Returns the ID token.
    pub(crate) async fn finish_device(&self, oidc: &Oidc, device: &Device) -> Result<String, Unproven> {
        let until = Instant::now() + MOST_WAIT.min(Duration::from_secs(device.expires_in));
        let mut interval = Duration::from_secs(device.interval.clamp(1, 60));
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", device.device_code.as_str()),
            ("client_id", oidc.client_id.as_str()),
        ];
        while Instant::now() < until {
            tokio::time::sleep(interval).await; // as RFC 8628 section 3.5 asks
            match self.token(oidc, &form).await {
                Ok(Ok(token)) => return Ok(token),
                Ok(Err(error)) => match error.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => interval += Duration::from_secs(5),
                    "access_denied" => return wrong("the login was refused there"),
                    _ => return wrong("the login was not completed there"),
                },
                // Its server may be back before the person's time is over.
                Err(_) => interval = (interval * 2).min(Duration::from_secs(60)),
            }
        }
        wrong("nobody logged in there in time")
    }

    /// Where a browser goes to log in.
    pub(crate) async fn authorize_at(&self, oidc: &Oidc, login: &BrowserLogin<'_>) -> Result<String, Unproven> {
        let metadata = self.metadata(oidc).await?;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &oidc.client_id)
            .append_pair("redirect_uri", login.redirect)
            .append_pair("scope", &oidc.scope())
            .append_pair("state", login.state)
            .append_pair("nonce", login.nonce)
            .append_pair("code_challenge", login.challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let uri =
            metadata.authorization_endpoint.parse::<Uri>().or_else(|_| away(&oidc.issuer, "its address is none"))?;
        if !is_safe(&uri) {
            return away(&oidc.issuer, "a browser would go there in clear");
        }
        let separator = if uri.query().is_some() { '&' } else { '?' };
        Ok(format!("{uri}{separator}{query}"))
    }

    /// The ID token for a code that a browser brought.
    pub(crate) async fn redeem(
        &self,
        oidc: &Oidc,
        code: &str,
        redirect: &str,
        verifier: &str,
    ) -> Result<String, Unproven> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
            ("client_id", oidc.client_id.as_str()),
        ];
        self.token(oidc, &form).await?.or_else(|_| wrong("the login was not completed there"))
    }

    async fn token(&self, oidc: &Oidc, form: &[(&str, &str)]) -> Result<Result<String, String>, Unproven> {
        let metadata = self.metadata(oidc).await?;
        let asked = place(oidc, &metadata.token_endpoint)?.post(form, oidc.basic()).await;
        let (status, body) = asked.or_else(|fault| away(&oidc.issuer, &fault))?;
        match serde_json::from_slice::<TokenAnswer>(&body) {
            Ok(TokenAnswer { id_token: Some(token), error: None }) if status.is_success() => Ok(Ok(token)),
            Ok(TokenAnswer { error: Some(error), .. }) => Ok(Err(error)),
            _ => away(&oidc.issuer, &format!("it answered {status}, and no ID token")),
        }
    }

    /// Who somebody is here, by an ID token.
    pub(crate) async fn who(
        &self,
        oidc: &Oidc,
        id_token: &str,
        nonce: Option<&str>,
        now: Timestamp,
    ) -> Result<Arrival, Unproven> {
        let keys = KeySource::Server(place(oidc, &self.metadata(oidc).await?.jwks_uri)?);
        let (audience, algorithms) = (oidc.client_id.clone(), oidc.algorithms.clone());
        let expected = Expected { issuer: oidc.issuer.clone(), audience, algorithms, keys };
        let claims = jwt::verify(id_token, &expected, &self.ring, now).await?;
        // Core section 3.1.3.7, 4 and 5.
        let several = claims.all.get("aud").and_then(Value::as_array).is_some_and(|aud| aud.len() > 1);
        let party = claims.all.get("azp").map(|azp| azp.as_str() == Some(oidc.client_id.as_str()));
        if party == Some(false) || (several && party.is_none()) {
            return wrong("it was made for another program (azp)");
        }
        if nonce.is_some_and(|nonce| claims.text("nonce") != Some(nonce)) {
            return wrong("it is not of this login (nonce)");
        }
        oidc.maps(&claims, now)
    }
}

/// What a browser takes along.
#[derive(Debug)]
pub(crate) struct BrowserLogin<'a> {
    pub(crate) redirect: &'a str,
    pub(crate) state: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) challenge: &'a str,
}

fn place(oidc: &Oidc, address: &str) -> Result<Place, Unproven> {
    let uri = address.parse::<Uri>().or_else(|_| away(&oidc.issuer, "an address of its is none"))?;
    Ok(Place { uri, tls_ca: oidc.tls_ca.clone() })
}

fn away<T>(issuer: &str, fault: &str) -> Result<T, Unproven> {
    tracing::error!(issuer, fault, "the OpenID provider cannot be asked");
    unknown("nobody can log in by the OpenID provider now: try again in a moment, or tell your admin")
}

impl Oidc {
    fn scope(&self) -> String {
        let more = self.scopes.iter().filter(|scope| *scope != "openid");
        more.fold("openid".to_owned(), |all, scope| format!("{all} {scope}"))
    }

    fn basic(&self) -> Option<(&str, &SecretString)> {
        self.secret.as_deref().map(|secret| (self.client_id.as_str(), secret))
    }

    /// Who has these claims.
    fn maps(&self, claims: &Claims, now: Timestamp) -> Result<Arrival, Unproven> {
        let fit =
            |sub: &&str| (1..=LONGEST_SUBJECT).contains(&sub.len()) && sub.bytes().all(|b| (0x20..=0x7e).contains(&b));
        let Some(subject) = claims.text("sub").filter(fit) else { return wrong("it does not say whose it is (sub)") };
        let ends = now.checked_add(self.life).map_err(|_| Unproven::Wrong("there is no such time".to_owned()))?;
        let (issuer, subject) = (self.issuer.clone(), subject.to_owned());
        if let Some(identity) = self.declared.get(&subject).cloned() {
            return Ok(Arrival { issuer, subject, identity, declared: true, groups: BTreeSet::new(), ends });
        }
        if self.identity == "email" && claims.all.get("email_verified") != Some(&Value::Bool(true)) {
            return wrong("the provider has not verified your address (email_verified)");
        }
        let Some(name) = claims.text(&self.identity) else {
            return wrong(format!("the provider does not say what you are called ({}): ask your admin", self.identity));
        };
        let Some(Ok(identity)) = name.strip_suffix(self.suffix.as_str()).map(str::parse::<IdentityName>) else {
            return wrong("what the provider calls you is no name here: an admin ties your login to a user (oidc)");
        };
        let there: Vec<&str> = match claims.all.get(&self.groups_claim) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        };
        let groups: BTreeSet<_> = there.iter().filter_map(|group| self.groups.get(*group)).flatten().cloned().collect();
        if groups.is_empty() {
            return wrong("none of your groups there is one here: ask your admin");
        }
        Ok(Arrival { issuer, subject, identity, declared: false, groups, ends })
    }
}
